"""A stage leaves what it cost beside its output."""

import argparse
import time
from pathlib import Path

import pytest

from pipeline import cost, stage, storage
from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path)


def work(args: argparse.Namespace) -> str:
    """Twice in a phase, then once outside of it."""
    for _ in range(2):
        with cost.phase("sleep"):
            time.sleep(0.02)
    time.sleep(0.02)
    cost.note(tokens=7)
    args.out.write_text("made")
    return "done"


def fail(args: argparse.Namespace) -> str:
    raise UserError("no")


def test_phases_add_up_and_the_rest_is_in_the_whole(tmp_path):
    before = time.time()
    stage.command(None, arguments, work, None)(["--out", str(tmp_path / "made.parquet")])
    (path,) = tmp_path.glob("*.cost.json")
    assert path == cost.path(tmp_path / "made.parquet", path.name.removesuffix(".cost.json"))
    record = storage.read_json(path)
    assert 0.04 <= record["phases"]["sleep"] < 1
    assert record["seconds"] == record["ended"] - record["began"]
    assert record["began"] < before < record["ended"]
    assert (record["tokens"], record["device"]) == (7, None)
    assert record["peak_bytes"] > 10_000_000


def test_a_stage_that_fails_leaves_no_cost(tmp_path):
    with pytest.raises(SystemExit):
        stage.command(None, arguments, fail, None)(["--out", str(tmp_path / "made.parquet")])
    assert not list(tmp_path.iterdir())


def test_the_cost_of_a_folder_stands_in_it(tmp_path):
    assert cost.path(tmp_path, "train") == tmp_path / "train.cost.json"
    assert cost.path(tmp_path / "rollouts.parquet", "rollout") == tmp_path / "rollout.cost.json"
