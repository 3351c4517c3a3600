"""SQL lives in `sql/queries`, in blocks that are all used, and nowhere else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from server.store.queries import SQL_DIR, load
from tests.structure.sources import parsed, strings

# It speaks to a server in single-user mode, before there is a database that could be migrated.
_BOOTSTRAP = Path("server/dev/embedded_postgres.py")
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|TRUNCATE|WITH|COPY|GRANT)\b")


def loaded(tree: ast.Module) -> dict[str, str]:
    """Name of a variable -> the topic whose blocks it has: `_Q: Final = load("orders")`."""
    topics = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        function, arguments = node.value.func, node.value.args
        if isinstance(function, ast.Name) and function.id == "load" and isinstance(target, ast.Name):
            (topic,) = arguments
            assert isinstance(topic, ast.Constant)
            topics[target.id] = str(topic.value)
    return topics


def used_blocks() -> set[tuple[str, str]]:
    """(topic, block) of every use in the server, also where one of two is chosen."""
    used = set()
    for path, tree in parsed("server").items():
        topics = loaded(tree) if path.parts[1] == "store" else {}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.value, ast.Name)
                and node.value.id in topics
            ):
                names = [each.value for each in ast.walk(node.slice) if isinstance(each, ast.Constant)]
                assert names, f"{path}:{node.lineno}: which block is used cannot be read"
                used |= {(topics[node.value.id], str(name)) for name in names}
    return used


def test_every_block_is_used_and_every_use_has_its_block() -> None:
    blocks = {(file.stem, name) for file in (SQL_DIR / "queries").glob("*.sql") for name in load(file.stem)}
    used = used_blocks()

    assert len(blocks) > 50
    assert sorted(blocks - used) == []
    assert sorted(used - blocks) == []


def test_no_sql_stands_in_python() -> None:
    found = [
        f"{path}:{line}: {text[:60]!r}"
        for path, tree in parsed("server").items()
        for line, text in strings(tree)
        if path != _BOOTSTRAP and _STATEMENT.match(text)
    ]

    assert found == []
