"""The documents, followed literally."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from igpo import experiment
from retrieval.params import merge, read_params

ROOT = Path(__file__).parents[1]
CODE = ("igpo", "retrieval", "tests", "workflow", "params.yaml", "pyproject.toml")


def blocks(language: str) -> list[str]:
    """The code blocks of docs/extending.md, in their order."""
    text = (ROOT / "docs/extending.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def insert(path: Path, before: str, lines: str) -> None:
    """Put lines ahead of the first line that begins so."""
    head, found, rest = path.read_text().partition(f"\n{before}")
    assert found, f"{path}: no line {before!r}"
    path.write_text(f"{head}\n{lines}{before}{rest}")


def add_method(root: Path) -> None:
    """Do what docs/extending.md says, to the code below `root`."""
    function, name, test = blocks("python")
    (arm,) = blocks("yaml")
    methods = root / "igpo/methods.py"
    insert(methods, "METHODS:", f"{function}\n\n")
    insert(methods, "}\nWITH_CRITIC", name)
    schema = root / "workflow/schemas/params.schema.yaml"
    choices = re.sub(r"(method: {enum: \[.*)\]}", r"\1, rank]}", schema.read_text())
    schema.write_text(choices)
    insert(root / "params.yaml", "  igpo: {}\n", arm)
    tests = root / "tests/test_methods.py"
    tests.write_text(f"{tests.read_text()}\n\n{test}")


@pytest.mark.slow
def test_a_method_is_added_as_extending_says(tmp_path):
    """In a copy of the code: its own test, those of every method, of the parameters and of its arm."""
    assert sum(len(block.splitlines()) for block in (*blocks("python"), *blocks("yaml"))) < 40
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    add_method(tmp_path)
    files = ["tests/test_methods.py", "tests/test_params.py", "tests/test_arms.py"]
    chosen = ["-k", "rank or can_be_chosen or is_explained", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, *chosen],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def disagreements(module: str, name: str) -> set[int]:
    """The rows of docs/differences.md that a test's docstring says it keeps."""
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            said = re.findall(r"Disagreements? (\d+(?:(?:, | and )\d+)*)", ast.get_docstring(node) or "")
            return {int(number) for numbers in said for number in re.findall(r"\d+", numbers)}
    pytest.fail(f"docs/differences.md names {module}::{name}, which does not exist")


def test_the_tests_that_differences_names_exist_and_name_their_row():
    text = (ROOT / "docs/differences.md").read_text()
    for module, name in re.findall(r"`(test_\w+)::(test_\w+)`", text):
        disagreements(module, name)
    rows = re.findall(r"^\| (\d+) \|.*\| (.*?) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    for number, kept_by in rows:
        tests = re.findall(r"`(test_\w+)::(test_\w+)`", kept_by)
        named = set().union(*(disagreements(*test) for test in tests))
        assert int(number) in named, f"no test of row {number} says 'Disagreement {number}'"


def test_the_settings_for_checkpoints_are_valid():
    text = (ROOT / "docs/checkpoints.md").read_text()
    found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(found) == 4
    for block in found:
        experiment.check(merge(read_params([ROOT / "params.yaml"]), yaml.safe_load(block)))
