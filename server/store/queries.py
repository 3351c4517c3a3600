"""The loader of `sql/queries/*.sql`: files of named, described SQL blocks.

A block begins with `-- name: some_name`, goes on with one or more comment lines that describe it, and ends where the
next begins. A test holds that every block is used and that every use has its block.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

SQL_DIR: Final = Path(__file__).resolve().parents[2] / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def load(topic: str) -> dict[str, str]:
    """The blocks of `sql/queries/<topic>.sql` by name, without their comment lines.

    Raises ValueError for a block that is empty, has no description, or repeats a name: a mistake in the checkout, found
    at import.
    """
    parts = _NAME.split((SQL_DIR / "queries" / f"{topic}.sql").read_text(encoding="utf-8"))
    blocks: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = body.strip().splitlines()
        statement = "\n".join(line for line in lines if not line.startswith("--")).strip()
        if not statement or not lines[0].startswith("--") or name in blocks:
            raise ValueError(f"{topic}.sql: block {name!r} is empty, not described or there twice")
        blocks[name] = statement
    return blocks
