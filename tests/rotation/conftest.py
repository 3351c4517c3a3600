"""Installations whose keys stand in files, and processes of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import key
from tests.outage.conftest import Spawn, spawn

__all__ = ["KeyFiles", "Spawn", "key_files", "spawn"]


class KeyFiles:
    """The rings of QR, JWT and webhook keys, each in a file that is replaced whole, as platforms mount secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets: dict[tuple[str, int], str] = {}
        self.write(1)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name the files."""
        names = ("QR_KEYS", "JWT_KEYS", "GATEWAY_SECRETS")
        return {f"GATELINE_{name}": f"file:{self.folder / name}" for name in names}

    def write(self, *order: int) -> None:
        """Rings of these keys, in this order."""
        rings = {"QR_KEYS": "{}:", "JWT_KEYS": "k{}:", "GATEWAY_SECRETS": ""}
        for name, prefix in rings.items():
            self.put(name, ",".join(prefix.format(n) + self._secret(name, n) for n in order))

    def put(self, name: str, text: str) -> None:
        """Another content of one file, in one step."""
        half = self.folder / f"{name}.half"
        half.write_text(text + "\n")
        half.replace(self.folder / name)

    def secret(self, name: str, number: int) -> str:
        """One key, in base64."""
        return self.secrets[name, number]

    def _secret(self, name: str, number: int) -> str:
        return self.secrets.setdefault((name, number), key())


@pytest.fixture
def key_files(tmp_path: Path, environment: dict[str, str]) -> KeyFiles:
    """The keys of `environment`, which names their files from now on."""
    folder = tmp_path / "keys"
    folder.mkdir()
    files = KeyFiles(folder)
    environment |= files.settings
    return files


def leaks(text: str, secrets: Mapping[object, str]) -> list[object]:
    """Which of these secrets stand in the text, whole or in a piece."""
    return [name for name, secret in secrets.items() if secret[4:24] in text or secret[-24:-4] in text]
