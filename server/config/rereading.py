"""Reading the configuration again while the process runs: its keys are taken, all else waits for a restart.

Only what stands in files (`file:PATH`) can have changed: nobody can change the environment of a running process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from server.config import SETTINGS, Config, ConfigError, Setting, content, load
from server.config.settings import SERVER_SETTINGS
from server.config.wechat import WECHAT_SETTINGS

_IDS: Final = (("GATELINE_QR_KEYS", "qr_keys"), ("GATELINE_JWT_KEYS", "jwt_keys"))
_IMPLIED: Final = "mch_key"  # private keys cannot be compared; this one is new when its certificate is


class Reread(msgspec.Struct, frozen=True):
    """What was found: a legal configuration, and the names of the settings that are new in it."""

    config: Config  # the one in use, with new keys
    rotated: tuple[str, ...]
    waiting: tuple[str, ...]  # for a restart

    def __repr__(self) -> str:
        """As of `Config`: without any value."""
        return "Reread(...)"


class Rereader:
    """Reads the environment again, and tells what is new in it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._texts = _texts(environment)

    def again(self, used: Config) -> Reread:
        """All settings, of which only the keys are taken over into `used`.

        Raises ConfigError, also when an id that is in use is given to another key: nothing that was signed under it
        could be verified any more, while the id says that it can.
        """
        texts, read = _texts(self._environment), load(self._environment)
        if faults := [
            f"{name} gives an id that is in use to another key: a new key needs an id of its own."
            for name, field in _IDS
            if _reused(getattr(used, field), getattr(read, field))
        ]:
            raise ConfigError("\n".join(faults))
        config = msgspec.structs.replace(used, **_keys(read, SERVER_SETTINGS))
        if used.wechat is not None and read.wechat is not None:
            wechat = msgspec.structs.replace(used.wechat, **_keys(read.wechat, WECHAT_SETTINGS))
            config = msgspec.structs.replace(config, wechat=wechat)
        waiting = [
            each.env for each in SETTINGS if not each.rotates and texts[each.env] != self._texts[each.env]
        ]
        return Reread(config, _rotated(used, config), tuple(waiting))


def _keys(of: msgspec.Struct, settings: Iterable[Setting]) -> dict[str, Any]:
    return {each.field: getattr(of, each.field) for each in settings if each.rotates}


def _rotated(before: Config, now: Config) -> tuple[str, ...]:
    names = _differing(SERVER_SETTINGS, before, now)
    if before.wechat is not None and now.wechat is not None:
        names += _differing(WECHAT_SETTINGS, before.wechat, now.wechat)
    return tuple(names)


def _differing(settings: Iterable[Setting], before: msgspec.Struct, now: msgspec.Struct) -> list[str]:
    return [
        each.env
        for each in settings
        if each.rotates and each.field != _IMPLIED and getattr(before, each.field) != getattr(now, each.field)
    ]


def _texts(environment: Mapping[str, str]) -> dict[str, str | None]:
    """What each setting says; None: its file cannot be read, with which `load` finds fault."""
    texts: dict[str, str | None] = {}
    for setting in SETTINGS:
        try:
            texts[setting.env] = content(environment.get(setting.env, ""))
        except (OSError, ValueError):
            texts[setting.env] = None
    return texts


def _reused(before: Iterable[tuple[object, bytes]], now: Iterable[tuple[object, bytes]]) -> bool:
    used = dict(before)
    return any(used.get(key_id, key) != key for key_id, key in now)
