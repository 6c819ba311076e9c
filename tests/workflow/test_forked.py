"""Stages that are forked run as they would by themselves, and end with who asked for them."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from root import ROOT
from small_index import write_corpus

pytestmark = pytest.mark.slow

PATIENCE_S = 120


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def stage(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "workflow/forked.py"), *map(str, words)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose server listens; when the run ends, so does the server."""
    folder = tmp_path_factory.mktemp("run")
    (folder / ".snakemake").mkdir()
    (folder / "first.py").write_text("print('here')\n")
    (folder / "ask.py").write_text("import os; print(os.getppid())\n")
    (folder / "stuck.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)\n")
    os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{ROOT}"
    with (folder / ".snakemake/alive").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        plain = subprocess.run(stage("first"), cwd=folder, capture_output=True, text=True, check=True)
        assert plain.stdout == "here\n"
        wait_for((folder / ".snakemake/forked.sock").exists)
        yield folder
    wait_for(lambda: not (folder / ".snakemake/forked.sock").exists())
    del os.environ["PYTHONPATH"]


def test_a_stage_is_a_fork_of_the_server(run):
    pids = [subprocess.check_output(stage("ask"), cwd=run, text=True) for _ in range(2)]
    assert pids[0] == pids[1]
    command = Path(f"/proc/{pids[0].strip()}/cmdline").read_text().split("\0")
    assert command[1].endswith("workflow/forked.py")


def test_it_writes_what_the_stage_by_itself_writes(run):
    corpus = write_corpus(run)
    for name, command in (("forked", stage()), ("plain", [sys.executable, "-m"])):
        words = ["retrieval.index", "--corpus", str(corpus), "--kind", "bm25", "--out", name]
        words += ["--params", str(ROOT / "params.yaml")]
        process = subprocess.run([*command, *words], cwd=run, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
        assert "bm25 index of" in process.stdout
    assert (run / "forked/manifest.json").read_bytes() == (run / "plain/manifest.json").read_bytes()


def test_an_error_is_its_line_and_exit_code_2(run):
    words = stage("igpo.model", "--source", "nowhere", "--out", "x", "--config", '{"source": "x"}')
    process = subprocess.run(words, cwd=run, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("error: model 'nowhere'")


def test_a_stage_ends_with_the_one_who_asked_for_it(run):
    with subprocess.Popen(stage("stuck"), cwd=run, stdout=subprocess.PIPE, text=True) as asking:
        number = asking.stdout.readline().strip()
        assert Path(f"/proc/{number}").exists()
        asking.send_signal(signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{number}").exists())
