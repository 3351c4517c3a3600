"""The rings of a configuration, moved on by one of the three steps of a rotation."""

from __future__ import annotations

import base64
import enum
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

from server.config import FILE, Config

_QR_IDS: Final = 256
PURPOSES: Final = {
    "qr": "GATELINE_QR_KEYS",
    "jwt": "GATELINE_JWT_KEYS",
    "webhook": "GATELINE_GATEWAY_SECRETS",
}
Key = TypeVar("Key")


class Step(enum.Enum):
    """In this order, each followed by a reload of every process."""

    ADD = "add"  # a fresh key at the end: every process can read it, none uses it
    TURN = "turn"  # the last key to the front: it signs, the others are accepted
    DROP = "drop"  # all but the first


class RingError(Exception):
    """The step cannot be taken; the message says why."""


def moved(
    config: Config, step: Step, purposes: Collection[str], fresh: Callable[[], bytes]
) -> dict[str, str]:
    """The settings of these purposes after the step, name -> text. Raises RingError."""
    texts = {}
    for purpose in purposes:
        keys = _spelled(config, purpose)
        if not keys:
            raise RingError(f"{PURPOSES[purpose]} is not set: `gateline keys` makes a first one.")
        if step is Step.ADD:
            keys = [*keys, _prefix(config, purpose) + _base64(fresh())]
        elif len(keys) == 1:
            raise RingError(f"{PURPOSES[purpose]} has one key alone: the first step is `--rotate add`.")
        else:
            keys = [keys[-1], *keys[:-1]] if step is Step.TURN else keys[:1]
        texts[PURPOSES[purpose]] = ",".join(keys)
    return texts


def write(environment: Mapping[str, str], texts: Mapping[str, str]) -> list[Path]:
    """Put each text into the file that its setting names, whole or not at all, for the same eyes as before.

    Raises RingError when a setting is in no file, before anything is written; OSError.
    """
    for name in texts:
        if not environment.get(name, "").startswith(FILE):
            raise RingError(
                f"{name} stands in no file: put what `gateline keys --rotate` prints where it comes from."
            )
    files = []
    for name, text in texts.items():
        file = Path(environment[name].removeprefix(FILE)).resolve()
        before = file.stat()
        half = file.with_name(f"{file.name}.half")
        half.unlink(missing_ok=True)
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text + "\n")
            os.fchown(stream.fileno(), before.st_uid, before.st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(before.st_mode))
        half.replace(file)
        files.append(file)
    return files


def _spelled(config: Config, purpose: str) -> list[str]:
    if purpose == "webhook":
        return [_base64(secret) for secret in config.gateway_secrets]
    keys = config.qr_keys if purpose == "qr" else config.jwt_keys
    return [f"{key_id}:{_base64(key)}" for key_id, key in keys]


def _prefix(config: Config, purpose: str) -> str:
    """The id of the next key: the number after the last one's. Ids that have left the ring are not known here."""
    if purpose == "webhook":
        return ""
    if purpose == "qr":
        used = {key_id for key_id, _ in config.qr_keys}
        last = config.qr_keys[-1][0]
        free = [
            (last + ahead) % _QR_IDS for ahead in range(1, _QR_IDS) if (last + ahead) % _QR_IDS not in used
        ]
        if not free:
            raise RingError("GATELINE_QR_KEYS has all 256 ids in use: drop some.")
        return f"{free[0]}:"
    taken = {key_id for key_id, _ in config.jwt_keys}
    found = re.fullmatch(r"(.*?)([0-9]*)", config.jwt_keys[-1][0])
    stem, number = (found[1], int(found[2] or 1)) if found else ("k", 1)
    while f"{stem}{(number := number + 1)}" in taken:
        pass
    return f"{stem}{number}:"


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()
