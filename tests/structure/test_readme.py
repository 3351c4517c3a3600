"""README tells the truth about the configuration and about where things are."""

from __future__ import annotations

import re

from server.config import SETTINGS, Setting
from tests.structure.sources import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def row(setting: Setting) -> str:
    """A setting's line of the table."""
    default = {None: "(required)", "": "empty"}.get(setting.default, f"`{setting.default}`")
    return f"| `{setting.env}` | {default} | {setting.legal} | {setting.meaning} |"


def test_the_table_of_the_configuration_has_every_setting_as_it_is() -> None:
    table = re.findall(r"^\| `[A-Z0-9_]+` \|.*$", README, re.MULTILINE)

    assert table == [row(setting) for setting in SETTINGS]


def test_no_reader_is_sent_to_a_file_that_is_not_there() -> None:
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|sql|lua|md))`", README)
    there = {path.name for room in ("server", "sql") for path in (ROOT / room).rglob("*")}
    missing = [
        name
        for name in named
        if not name.startswith((".gateline/", ".venv/"))
        and name not in there
        and not any((room / name).exists() for room in (ROOT, ROOT / "server"))
    ]

    assert len(named) > 10
    assert missing == []
