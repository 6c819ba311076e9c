"""Every command of the README and the documentation, as it stands there, in a folder with a finished run.

What Snakemake and make would do is planned, not done; a server is started and then told to end. Blocks marked
`console` are for machines that we don't have, and their page says so.
"""

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
from tiny_experiment import make

from igpo.reporting.results import SETTINGS
from pipeline import storage

pytestmark = pytest.mark.slow

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIAL = ROOT / "docs/tutorials/own_data.md"
STAY = ("retrieval serve", "mlflow ui", "igpo status --watch")  # go on until they are told to end
PLANNED = {
    "snakemake": f"snakemake --dry-run --snakefile {ROOT / 'Snakefile'} --directory planned",
    "make": f"make --dry-run --directory {ROOT}",
}
# of the paper's experiment
SOURCES = ["wiki-18.jsonl", "encoder/config.json", "Qwen2.5-7B-Instruct/config.json"]
SOURCES += [f"paper_{split}.parquet" for split in ("train", "dev", "test")]


def scripts(page: Path) -> list[str]:
    """The blocks of a page that are marked as shell commands, a command a line."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SCRIPTS = [(page, script) for page in PAGES if page != TUTORIAL for script in scripts(page)]
LINES = [line.partition("#")[0].strip() for _, script in SCRIPTS for line in script.splitlines()]
# what a pod does in the folder of its volume
POD = yaml.safe_load((ROOT / "profiles/kubernetes.yaml").read_text())["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
LINES.append(" ".join([*CONTAINER["command"], *CONTAINER["args"]]).replace("--directory /experiment", ""))
TO_PLAN = sorted({line for line in LINES if line.partition(" ")[0] in PLANNED})


def rehearsed(script: str) -> str:
    """The lines of a script that are done, without those that are planned; what would go on for long ends."""
    lines = []
    for line in script.splitlines():
        if line.startswith(STAY):
            lines.append(f"timeout --signal INT 20 {line.partition('#')[0]} || test $? = 124")
        elif line.partition(" ")[0] not in PLANNED and not line.startswith("source .venv"):
            lines.append(line)
    return "\n".join(lines)


DONE = {rehearsed(script): page for page, script in SCRIPTS if rehearsed(script)}


def shell(script: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a script in a folder, with this environment's commands."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # below `make test`, a make would also print its folder
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=variables | {"PATH": path}, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_model) -> Path:
    """A copy of the repository with a finished tiny experiment, and files that pages ask for."""
    folder = make(tmp_path_factory.mktemp("finished"), base_model)
    process = shell("snakemake --cores 2", folder)
    assert process.returncode == 0, process.stderr[-4000:]
    for name in ("experiments", "requirements", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # which dvc asks for
    (folder / "my").mkdir()
    shutil.copy(folder / "corpus.jsonl", folder / "my/passages.jsonl")
    shutil.copy(folder / "results/questions/test.parquet", folder / "questions.parquet")
    for name in SOURCES:
        path = folder / "planned/data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    "script", DONE, ids=[f"{page.stem}-{number}" for number, page in enumerate(DONE.values())]
)
def test_commands_run(finished, script):
    process = shell(script, finished)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]


@pytest.mark.parametrize("line", TO_PLAN)
def test_runs_are_planned(finished, line):
    name = line.partition(" ")[0]
    process = shell(PLANNED[name] + line.removeprefix(name), finished)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]


def test_every_block_says_whether_it_is_a_script():
    """A block without a mark shows text, none of which is a command."""
    for page in PAGES:
        for mark, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            commands = re.findall(r"^(?:igpo|retrieval|snakemake|make) \w.*", block, re.MULTILINE)
            assert mark in ("sh", "console") or not commands, f"{page}: {commands}"


def test_the_tutorial_of_own_data_runs_to_its_end(tmp_path, base_model):
    """Literally, but for the model: a tiny random one, which learns nothing either and needs no minutes."""
    folder = make(tmp_path / "copy", base_model)
    shutil.copy(ROOT / "params.yaml", folder)
    tiny = "--config 'model={source: tiny}' 'rollout={engine: transformers, turn_tokens: 8}'"
    for script in scripts(TUTORIAL):
        process = shell(re.sub(r"^(snakemake .*)$", rf"\1 {tiny}", script, flags=re.MULTILINE), folder)
        assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
    assert "births" in (folder / "results/tables/main.md").read_text()
    assert (folder / "results/report.html").exists()


def test_every_logged_name_is_in_the_glossary(finished):
    """Those of the curves, in which health and updates stand too, and of an evaluation."""
    glossary = set(re.findall(r"`(\w+)`", (ROOT / "docs/metrics.md").read_text()))
    curves = pd.read_csv(finished / "results/tables/curves.csv")
    metrics = storage.read_json(finished / "results/evaluations/igpo_s1/metrics.json")
    # where it comes from
    origin = {"arm", "seed", "iteration", "policy_sha256", "questions_sha256", *SETTINGS}
    assert not {*curves.columns, *metrics["overall"]} - origin - glossary
