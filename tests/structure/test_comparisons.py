"""Secrets are compared in constant time: an operator that stops at the first difference tells where it was."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.structure.sources import parsed, words

SECRET = re.compile(r"secret|signature|password|passphrase|hmac|mac|digest|token|phc")
# file -> why its comparison tells nobody anything
ALLOWED = {
    "server/commands.py": "whoever types a password types it twice",
    "server/config/wechat.py": "whether settings are there, not what they are",
    "server/hot/loading.py": "which rehydration may write: a number of our own in Redis",
    "server/dev/walk.py": "the demo forges a token",
}


def compared(tree: ast.AST) -> list[str]:
    """Every == and != with something that is named like a secret."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not all(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
            continue
        if all(isinstance(each, ast.Name) and each.id.isupper() for each in node.comparators):
            continue  # with one of our constants: a length, a word
        names = [
            word
            for side in (node.left, *node.comparators)
            for part in ast.walk(side)
            if isinstance(part, ast.Name | ast.Attribute)
            for word in words(part.id if isinstance(part, ast.Name) else part.attr)
        ]
        if any(SECRET.fullmatch(name.rstrip("s")) for name in names):
            found.append(ast.unparse(node))
    return found


def test_no_secret_is_compared_by_an_operator() -> None:
    found = {str(path): compared(tree) for path, tree in parsed("server").items()}

    assert {path: each for path, each in found.items() if each and path not in ALLOWED} == {}
    assert compared(ast.parse("given == self._signature")) == ["given == self._signature"]


def test_the_signature_of_the_hosted_gateway_is_compared_in_constant_time() -> None:
    source = ast.unparse(parsed("server")[Path("server/hosted/signing.py")])

    assert "hmac.compare_digest" in source
    assert compared(ast.parse(source)) == []
