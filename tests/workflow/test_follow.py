"""A run in MLflow while it goes on: its iterations appear; in the end it is finished, or failed if killed."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_experiment import make

pytestmark = pytest.mark.slow

WAIT_S = 600


@pytest.fixture
def started(tmp_path, base_model):
    """(folder, Snakemake) of the tiny experiment, which has just been started."""
    folder = make(tmp_path / "run", base_model, run={"iterations": 4, "validate_every": 0, "select": "last"})
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    with (tmp_path / "said").open("w") as output:
        run = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
        yield folder, run
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def state(folder: Path) -> tuple[str, int]:
    """Status of the run igpo_s1 in a folder's MLflow, and how many iterations it has; ("", 0) of none.

    MLflow's own client would bring the database up to date, while the run does.
    """
    points = "SELECT count(*) FROM metrics WHERE key = 'train/f1' AND run_uuid = runs.run_uuid"
    query = f"SELECT status, ({points}) FROM runs WHERE name = 'igpo_s1' AND lifecycle_stage = 'active'"
    address = f"file:{folder / 'mlflow.db'}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            rows = database.execute(query).fetchall()
    except sqlite3.OperationalError:  # there is no database yet, or it is locked
        rows = []
    return rows[0] if rows else ("", 0)


def wait(until: Callable[[], bool]) -> None:
    """Wait for something that comes."""
    end = time.monotonic() + WAIT_S
    while not until():
        assert time.monotonic() < end
        time.sleep(1)


def test_iterations_appear_while_a_run_goes_on(started):
    folder, run = started
    wait(lambda: state(folder)[1] >= 1 or run.poll() is not None)
    status, iterations = state(folder)
    assert run.poll() is None
    assert status == "RUNNING" and iterations < 4
    assert run.wait(WAIT_S) == 0
    assert state(folder) == ("FINISHED", 4)


def test_a_killed_run_has_failed(started):
    folder, run = started
    wait(lambda: state(folder)[1] >= 1)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    wait(lambda: state(folder)[0] != "RUNNING")
    assert state(folder)[0] == "FAILED"
