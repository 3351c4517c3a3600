"""The sources, parsed once: what the tests of structure look at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server"


@cache
def parsed(folder: str) -> dict[Path, ast.Module]:
    """Every Python file of a folder of the checkout: path from the top -> its tree."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def module_name(path: Path) -> str:
    """`server/hot/keys.py` -> `server.hot.keys`; a package is named by its folder."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def words(name: str) -> list[str]:
    """`ScriptRunner`, `script_runner` -> `script`, `runner`."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def docstrings(tree: ast.AST) -> set[ast.Constant]:
    """The constants that are documentation: expressions of their own."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every string that is no documentation."""
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.lineno, node.value
