"""Where the tables and keys of a TOML document stand, since tomllib does not say.

The document has been read by tomllib before, so it is valid TOML: only strings, comments and brackets have to be told
apart to see where statements begin (TOML 1.0.0, https://toml.io/en/v1.0.0).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

Path: TypeAlias = tuple[
    str | int, ...
]  # ("products", 2, "functions", "bus"): as one would index the document

_PART: Final = re.compile(
    r'''"""(?:\\[\s\S]|(?!""")[\s\S])*"{3,5}'''
    r"""|'''(?:(?!''')[\s\S])*'{3,5}"""
    r'''|"(?:\\.|[^"\\\n])*"'''
    r"""|'[^'\n]*'"""
    r"""|#[^\n]*"""
    r"""|[A-Za-z0-9_-]+"""
    r"""|[ \t]+"""
    r"""|[\s\S]"""
)


class Lines:
    """Lines of a document, from 1."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self._lines = lines

    def at(self, *path: str | int) -> int:
        """Where this key or table stands; else where the nearest one around it does (1 for the whole document)."""
        for end in range(len(path), 0, -1):
            line = self._lines.get(path[:end])
            if line is not None:
                return line
        return 1


def locate(text: str) -> Lines:
    """The lines of all tables and keys of a valid document.

    What stands inside a value (an inline table, an array) is found at the value's key.
    """
    lines: dict[Path, int] = {}
    tables: dict[Path, int] = {}  # how many [[tables]] of a name there are so far
    around: Path = ()
    for line, parts in _statements(text):
        if parts[0] != "[":
            _note(lines, around, _names(parts), line)
            continue
        several = parts[1] == "["
        names = _names(parts[2 if several else 1 :])
        around = ()
        for name in names[:-1] if several else names:
            around = (*around, name)
            if around in tables:
                around = (*around, tables[around] - 1)
            lines.setdefault(around, line)
        if several:
            around = (*around, names[-1])
            lines.setdefault(around, line)
            tables[around] = tables.get(around, 0) + 1
            around = (*around, tables[around] - 1)
            lines[around] = line
    return Lines(lines)


def _note(lines: dict[Path, int], around: Path, names: Sequence[str], line: int) -> None:
    for name in names:
        around = (*around, name)
        lines.setdefault(around, line)


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line, parts) of every header and every `key = value`, without white space and comments."""
    line, begun, depth = 1, 1, 0
    parts: list[str] = []
    for match in _PART.finditer(text):
        part = match[0]
        if part == "\n" and depth == 0 and parts:
            yield begun, parts
            parts = []
        elif not part.isspace() and not part.startswith("#"):
            if not parts:
                begun = line
            depth += (part in "[{") - (part in "]}")
            parts.append(part)
        line += part.count("\n")
    if parts:
        yield begun, parts


def _names(parts: Sequence[str]) -> list[str]:
    """The parts of a dotted key, up to what ends it."""
    names = []
    for part in parts:
        if part in "=]":
            break
        if part != ".":
            names.append(tomllib.loads(f"name = {part}")["name"] if part[0] in "\"'" else part)
    return names
