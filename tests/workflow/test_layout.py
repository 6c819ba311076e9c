"""The layout that docs/architecture.md describes."""

import ast
import graphlib
from pathlib import Path

import pytest
from root import ROOT

PACKAGES = ("pipeline", "retrieval", "igpo")  # each may import those before it
FILES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
ALL = [
    *FILES,
    *(path for folder in ("workflow", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
]
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = set(map(name_of, FILES))


def imports(path: Path) -> set[str]:
    """The modules of this repository that a module imports, anywhere in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= members & NAMES or {node.module}
    return modules - {name_of(path)}


GRAPH = {name_of(path): imports(path) for path in FILES}


def test_no_imports_run_in_a_circle():
    list(graphlib.TopologicalSorter(GRAPH).static_order())


@pytest.mark.parametrize("number", range(len(PACKAGES)))
def test_no_import_runs_upward(number):
    above = PACKAGES[number + 1 :]
    edges = {
        (name, other)
        for name, others in GRAPH.items()
        for other in others
        if name.partition(".")[0] == PACKAGES[number] and other.partition(".")[0] in above
    }
    assert not edges


def test_commands_are_imported_by_nothing():
    commands = {
        name for name in NAMES if name.count(".") == 1 and (ROOT / f"{name.replace('.', '/')}.py").exists()
    }
    commands = {name for name in commands if not name.startswith("pipeline.")}
    edges = {(name, other) for name, others in GRAPH.items() for other in others & commands}
    assert not edges


def test_modules_functions_and_folders_are_small():
    assert not [path for path in ALL if len(path.read_text().splitlines()) > 300]
    functions = [
        node for path in ALL for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTION)
    ]
    assert not [node.name for node in functions if node.end_lineno - node.lineno >= 50]
    parameters = {node.name: len(node.args.args) + len(node.args.kwonlyargs) for node in functions}
    assert not [name for name, number in parameters.items() if number > 6]
    folders = {path.parent for path in ALL}
    assert not [folder for folder in folders if sum(path.is_file() for path in folder.iterdir()) > 20]


def test_no_two_modules_have_one_name():
    stems = [path.stem for path in FILES if not path.stem.startswith("__")]
    assert sorted(stems) == sorted(set(stems))
