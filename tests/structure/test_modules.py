"""Modules keep their places: layers without cycles, names that mean something, files and functions one can read."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.structure.sources import ROOT, SERVER, module_name, parsed, words

FORBIDDEN = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "base", "misc"})
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 80


def imports() -> dict[str, set[str]]:
    """Module of the server -> the modules of the server that it imports, inside functions too."""
    modules = {module_name(path): tree for path, tree in parsed("server").items()}
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno}: imports say where from"
                origin = node.module or ""
                found |= {
                    f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in modules else origin
                    for alias in node.names
                }
        graph[module] = found & modules.keys()
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some cycle, or nothing."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for each in sorted(graph[module]):
            if found := walk(each, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = imports()

    assert sum(map(len, graph.values())) > 100
    assert cycle(graph) == []
    assert cycle(graph | {"server.limits": {"server.app"}}) != []


def test_the_contract_of_layers_names_every_room() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    named = {room for layer in layers["layers"] for room in layer.split(" | ")}
    rooms = {
        f"server.{path.stem}"
        for path in SERVER.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    }

    assert named == rooms - {"server.__init__"}


@pytest.mark.parametrize("folder", ["server", "bench", "tests"])
def test_no_name_says_nothing(folder: str) -> None:
    names = [(path, path.stem) for path in parsed(folder)]
    names += [
        (path, node.name)
        for path, tree in parsed(folder).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]

    assert [f"{path}: {name}" for path, name in names if FORBIDDEN.intersection(words(name))] == []
    assert words("BaseHTTPManager") == ["base", "http", "manager"]


def test_files_and_functions_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    files, functions = [], []
    for folder in ("server", "bench"):
        for path, tree in parsed(folder).items():
            files.append((len((ROOT / path).read_text(encoding="utf-8").splitlines()), str(path)))
            functions += [
                (node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
                for node in ast.walk(tree)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
            ]
    with capsys.disabled():
        for kind, sizes in (("files", files), ("functions", functions)):
            largest = ", ".join(f"{what} ({lines} lines)" for lines, what in sorted(sizes)[:-4:-1])
            sys.stdout.write(f"\nlargest {kind}: {largest}\n")

    assert [each for each in files if each[0] > FILE_LINES_MAX] == []
    assert [each for each in functions if each[0] > FUNCTION_LINES_MAX] == []


def test_only_the_configuration_reads_the_environment() -> None:
    """It is handed the environment by the command line, which else only names the folder of the metrics library."""
    found = []
    for path, tree in parsed("server").items():
        allowed = _handed_on(tree) if path.name in ("cli.py", "commands.py") else set()
        found += [
            f"{path}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute | ast.Name)
            and re.fullmatch(r"os\.(environb?|getenvb?)|environb?|getenvb?", ast.unparse(node))
            and node not in allowed
        ]

    assert found == []


def _handed_on(tree: ast.Module) -> set[ast.AST]:
    """Where `os.environ` is a whole argument, or gets the name that prometheus_client reads."""
    places: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            places.update(node.args)
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.slice) == "'PROMETHEUS_MULTIPROC_DIR'"
        ):
            places.add(node.value)
    return places


def test_every_limit_is_used() -> None:
    (limits,) = [tree for path, tree in parsed("server").items() if path == Path("server/limits.py")]
    defined = {
        node.id for node in ast.walk(limits) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    used = {
        node.id
        for tree in parsed("server").values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }

    assert len(defined) > 50
    assert sorted(defined - used) == []
