"""A stage's command line: what is wrong with it is one line."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from root import ROOT
from small_index import refusal

from igpo import advantage, plan, rollout
from igpo.experiment import checks
from pipeline import stage, storage
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "{}", "--set", "advantage.std=[1"], "--set advantage.std=[1: the value is not YAML"),
        (["--config", "{}", "--set", "advantage.std=2025-13-45"], "2025-13-45: the value is not YAML"),
        (["--config", '{"gamma": 1, "gamma": 0}'], "--config: not JSON: key 'gamma' comes twice"),
        (["--config", "3"], "params: advantage: 3 is not of type 'object'"),
        (["--config", "null", "--set", "advantage.gamma=1"], "advantage: None is not of type 'object'"),
        (["--config", "{}", "--arm", "grpo"], "give it, or --params and --arm, not both"),
        (["--config", "{}", "--params", "nulls.yaml"], "give it, or --params and --arm, not both"),
        (["--params", "nulls.yaml"], "params: advantage: None is not of type 'object'"),
        (["--params", "nulls.yaml", "--arm", "grpo"], "params: arms: None is not of type 'object'"),
        (["--params", "day.yaml"], "day.yaml: not YAML"),
        (["--params", "."], "error: .: Is a directory; give a parameter file"),
    ],
)
def test_a_stage_names_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("nulls.yaml").write_text("advantage:\narms:\n")
    Path("day.yaml").write_text("rollout: {date: 2025-13-45}\n")
    files = ["--rollouts", "rollouts", "--scores", "scores", "--out", "advantages"]
    assert message in refusal(capsys, advantage.main, *files, *words)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("folder", "error: folder: Is a directory; give another path"),
        ("file/advantages", "error: file: File exists; give another path"),
        ("n" * 300, "File name too long; give another path"),
        ("/dev/full", "No space left on device; make room"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys, out, message):
    def run(args):
        with storage.replacing(args.out) if args.out != Path("/dev/full") else nullcontext(args.out) as path:
            path.write_text("text")

    run.__module__ = __name__
    main = stage.command(None, lambda parser: parser.add_argument("--out", type=Path), run, "A stage.")
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    assert message in refusal(capsys, main, "--out", out)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["file", "folder"]


def test_all_parameters_are_given_once():
    with pytest.raises(UserError, match="give it or --params, not both"):
        checks.read(SimpleNamespace(config="{}", params=[Path("params.yaml")]))


@pytest.mark.parametrize(
    ("main", "option", "value"),
    [
        *((rollout.main, "--iteration", value) for value in ("0", "-3", "1.5")),
        *((plan.main, option, "-1") for option in ("--tokens", "--passages", "--weights")),
        (plan.main, "--weights", "inf"),
        (plan.main, "--questions", "test=-1"),
        *((advantage.main, "--progress", value) for value in ("0", "1.01", "nan")),
    ],
)
def test_a_number_that_counts_nothing_is_one_line(main, option, value, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    message = refusal(capsys, main, option, value)
    assert option in message and "number above 0" in message
