"""The documents, followed literally."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from root import ROOT

from igpo import questions
from igpo.credit.methods import METHODS
from igpo.experiment import checks
from pipeline.settings import merge, read_params
from retrieval import corpus

SPLITS = ("train", "dev", "test")
CODE = ("pipeline", "igpo", "retrieval", "tests", "workflow", "params.yaml", "pyproject.toml")


def blocks(language: str) -> list[str]:
    """The code blocks of docs/extending.md, in their order."""
    text = (ROOT / "docs/extending.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def insert(path: Path, before: str, lines: str) -> None:
    """Put lines ahead of the first line that begins so."""
    head, mark, rest = path.read_text().partition(f"\n{before}")
    assert mark, f"{path}: no line {before!r}"
    path.write_text(f"{head}\n{lines}{before}{rest}")


def add_method(root: Path) -> None:
    """Do what docs/extending.md says, to the code below `root`."""
    function, name, test = blocks("python")
    (arm,) = blocks("yaml")
    methods = root / "igpo/credit/methods.py"
    insert(methods, "METHODS:", f"{function}\n\n")
    insert(methods, "}\nWITH_CRITIC", name)
    schema = root / "pipeline/params.schema.yaml"
    choices = re.sub(r"(method: {enum: \[.*)\]}", r"\1, rank]}", schema.read_text())
    schema.write_text(choices)
    insert(root / "params.yaml", "  igpo: {}\n", arm)
    tests = root / "tests/igpo/credit/test_methods.py"
    tests.write_text(f"{tests.read_text()}\n\n{test}")


@pytest.mark.slow
def test_a_method_is_added_as_extending_says(tmp_path):
    """In a copy of the code: its own test, those of every method, of the parameters and of its arm."""
    assert sum(len(block.splitlines()) for block in (*blocks("python"), *blocks("yaml"))) < 40
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    add_method(tmp_path)
    files = [
        "tests/igpo/credit/test_methods.py",
        "tests/pipeline/test_params.py",
        "tests/workflow/test_arms.py",
    ]
    chosen = ["-k", "rank or can_be_chosen or is_explained", "-p", "no:cacheprovider"]
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *files, *chosen],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout[-3000:]


def defined(module: str) -> set[str]:
    """Names of the functions in a test module."""
    (path,) = (ROOT / "tests").rglob(f"{module}.py")
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_row_of_differences_names_tests_that_exist():
    text = (ROOT / "docs/differences.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\| (.*?) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 27))
    assert all(re.search(r"`test_\w+::test_\w+`", kept_by) for _, kept_by in rows)
    for module, name in re.findall(r"`(test_\w+)::(test_\w+)`", text):
        assert name in defined(module), f"docs/differences.md names {module}::{name}"


def test_the_settings_for_checkpoints_are_valid():
    text = (ROOT / "docs/checkpoints.md").read_text()
    overlays = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(overlays) == 4
    for block in overlays:
        checks.check(merge(read_params([ROOT / "params.yaml"]), yaml.safe_load(block)))


def messages() -> list[re.Pattern[str]]:
    """What the code and the Makefile can say to a user, with any text for what is put in."""
    patterns = [
        r"error: another run is going on in this folder",
        r"error: Python 3\.11 is needed; give its path: .*",
        r"no CPU build of torch \(.*\): .*",
    ]
    for folder in ("pipeline", "igpo", "retrieval", "workflow"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [re.escape(v.value) if isinstance(v, ast.Constant) else ".+" for v in node.values]
                    patterns.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    patterns.append(re.escape(node.value))
    telling = [pattern for pattern in patterns if len(re.sub(r"\\|\.\+|\W", "", pattern)) > 12]
    # a reader's error is put behind its file and row
    return [re.compile(rf"(?:.*: row \d+: )?{pattern}") for pattern in telling]


def test_the_errors_of_the_faq_are_those_of_the_code():
    quoted = re.findall(r"^\*\*(`+)(.*?)\1\*\*", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    assert len(quoted) > 15
    patterns = messages()
    for _, line in quoted:
        message = line.replace("…", "and more").rstrip()
        assert any(pattern.fullmatch(message) for pattern in patterns), line


def test_every_method_and_arm_has_its_page():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/methods").glob("*.md")}
    assert not set(METHODS) - {*pages, "reinforce_pp_baseline"}
    names = set(re.findall(r"`(\w+)`", "".join(pages.values())))
    arms = read_params([ROOT / "params.yaml"])["arms"]
    assert not {name for name in arms if not name.startswith("single_turn")} - names
    for name, text in pages.items():
        lists = re.findall(r"arms: \[(.*?)\]", text)
        assert set(", ".join(lists).split(", ")) - {""} <= set(arms), name


def test_the_tests_that_the_docs_name_exist():
    named = re.findall(r"`(test_\w+)::(test_\w+)", (ROOT / "docs/differences.md").read_text())
    assert len(named) > 30
    for module, name in named:
        (path,) = (ROOT / "tests").rglob(f"{module}.py")
        assert f"\ndef {name}(" in path.read_text(), f"{module}::{name}"


def test_the_numbers_of_a_method_are_those_of_the_pages_that_it_names():
    compared = 0
    for path in (ROOT / "docs/methods").glob("*.md"):
        for item in re.split(r"^\* |; ", path.read_text().partition("## Numbers")[2], flags=re.MULTILINE):
            for page in re.findall(r"\]\((\.\./results/\w+\.md)\)", item):
                cells = re.findall(r"[+-]?\d+\.\d", (path.parent / page).read_text())
                for number in re.findall(r"[+-]?\d+\.\d", item):
                    assert number in cells, f"{path.name}: {number} is not in {page}"
                    compared += 1
    assert compared > 10


@pytest.mark.slow
def test_the_data_card_counts_the_questions_that_there_are(tmp_path):
    corpus.main(["--config", '{"source": "vital"}', "--out", str(tmp_path / "corpus.parquet")])
    options = ["--corpus", str(tmp_path / "corpus.parquet"), "--out", str(tmp_path / "questions")]
    questions.main(["--source", "vitalqa", "--params", str(ROOT / "params.yaml"), *options])
    rows = pd.concat(pd.read_parquet(tmp_path / f"questions/{split}.parquet") for split in SPLITS)
    text = (ROOT / "docs/vitalqa.md").read_text()
    headline = rows[rows["benchmark"] == "vitalqa"]
    groups = {
        "`vitalqa`": headline,
        "one hop": headline[headline["hops"] == 1],
        "two hops": headline[headline["hops"] == 2],
        "`vitalqa_guessable`": rows[rows["benchmark"] == "vitalqa_guessable"],
    }
    for name, group in groups.items():
        counts = [(group["split"] == split).sum() for split in SPLITS]
        assert f"| {name} | {' | '.join(map(str, counts))} |" in text
    for kind, group in headline.groupby("type"):
        counts = [(group["split"] == split).sum() for split in SPLITS]
        cells = [f"`{kind}`", group["hops"].iloc[0], *counts]
        (example,) = re.findall(re.escape(f"| {' | '.join(map(str, cells))} | ") + r"(.*?) \|", text)
        assert example in set(group["question"])
    assert round(100 * headline["answers"].map(lambda answers: answers[0][0].isdigit()).mean()) == 85
