"""Every training arm of params.yaml for two iterations of the real stages, wired as the rules wire them."""

import math
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_loop import SETTINGS, loop_start, stage

from igpo import advantage, critic, rollout, schema, score, train
from igpo.methods import WITH_CRITIC
from igpo.model import STATE, weights_sha256
from retrieval import tables
from retrieval.stage import apply_arm

pytestmark = pytest.mark.slow

TRAINED = [name for name, arm in SETTINGS["arms"].items() if "rollout" not in (arm or {})]


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return loop_start(tmp_path_factory)


@pytest.fixture(scope="module")
def first_rollouts(start, tmp_path_factory) -> Path:
    """Rollouts of the warm start, which all arms have in common."""
    out = tmp_path_factory.mktemp("first") / "rollouts.parquet"
    play(start, start / "warm", out, iteration=1, samples=8)
    return out


def play(start: Path, policy: Path, out: Path, iteration: int, samples: int) -> None:
    """Write an iteration's rollouts."""
    files = ["--policy", policy, "--questions", start / "questions.parquet", "--index", start / "bm25"]
    over = {"engine": "transformers", "benchmarks": [], "turn_tokens": 64, "samples": samples}
    stage(rollout.main, "rollout", *files, "--iteration", iteration, "--out", out, **over)


def has_critic(arm: str) -> bool:
    return apply_arm(SETTINGS, arm)["advantage"]["method"] in WITH_CRITIC


def iterate(k: int, start: Path, arm: str, before: Path, rollouts: Path, out: Path) -> None:
    """Update the policy in `before` on its rollouts: everything from its scores to the policy in `out`."""
    played = ["--rollouts", rollouts]
    scored, values = [*played, "--scores", out / "scores.parquet"], []
    known = ["--reference", start / "warm", "--questions", start / "questions.parquet"]
    known += ["--corpus", start / "corpus.parquet", "--out", out / "scores.parquet"]
    stage(score.main, "score", "--policy", before, *played, *known, arm=arm)
    if has_critic(arm):
        last = before / "critic" if (before / "critic").exists() else before
        values = ["--values", out / "values.parquet"]
        stage(critic.main, "critic", "--critic", last, *scored, *values, "--out", out / "critic", arm=arm)
    values += ["--progress", k / 2, "--out", out / "advantages.parquet"]
    stage(advantage.main, "advantage", *scored, *values, arm=arm)
    credited = [*scored, "--advantages", out / "advantages.parquet"]
    stage(train.main, "train", "--policy", before, *credited, "--out", out, arm=arm)


def check_iteration(k: int, arm: str, before: Path, rollouts: Path, out: Path) -> None:
    """One finite credit per turn, a loss on all policy tokens and no other, and a policy that went on."""
    turns = [row for row in tables.read(rollouts, schema.ROLLOUTS).to_pylist() if row["turn"]]
    credits = tables.read(out / "advantages.parquet", schema.ADVANTAGES).to_pylist()
    assert [schema.turn_key(row) for row in credits] == [schema.turn_key(row) for row in turns]
    assert all(math.isfinite(row["advantage"]) for row in credits)
    manifest = tables.read_json(out / "policy.json")
    assert all(math.isfinite(value) for value in manifest["metrics"].values())
    assert manifest["metrics"]["policy_tokens"] == sum(len(row["policy_ids"]) for row in turns)
    assert (manifest["iteration"], manifest["parents"]) == (k, [weights_sha256(before)])
    assert weights_sha256(out) != weights_sha256(before)
    for folder in (out, out / "critic") if has_critic(arm) else (out,):
        assert load_file(folder / STATE)["step"] == k  # of the optimiser


@pytest.mark.parametrize("arm", TRAINED)
def test_an_arm_trains_for_two_iterations(start, first_rollouts, tmp_path, arm):
    iterate(1, start, arm, start / "warm", first_rollouts, tmp_path / "1")
    check_iteration(1, arm, start / "warm", first_rollouts, tmp_path / "1")
    credits = tables.read(tmp_path / "1/advantages.parquet", schema.ADVANTAGES)["advantage"].to_pylist()
    assert any(credits)
    second_rollouts = tmp_path / "rollouts.parquet"
    play(start, tmp_path / "1", second_rollouts, iteration=2, samples=2)
    iterate(2, start, arm, tmp_path / "1", second_rollouts, tmp_path / "2")
    check_iteration(2, arm, tmp_path / "1", second_rollouts, tmp_path / "2")
