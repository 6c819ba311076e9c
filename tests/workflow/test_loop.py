"""Every training arm of params.yaml for two iterations of the real stages, wired as the rules wire them."""

import math
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from small_loop import SETTINGS, loop_start, stage

from igpo import advantage, critic, health, rollout, score, train
from igpo.credit.methods import WITH_CRITIC
from igpo.experiment import schema
from igpo.experiment.policy import STATE, weights_sha256
from pipeline import storage
from pipeline.settings import apply_arm

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
    inputs = ["--reference", start / "warm", "--questions", start / "questions.parquet"]
    inputs += ["--corpus", start / "corpus.parquet", "--out", out / "scores.parquet"]
    stage(score.main, "score", "--policy", before, *played, *inputs, arm=arm)
    if has_critic(arm):
        last = before / "critic" if (before / "critic").exists() else before
        values = ["--values", out / "values.parquet"]
        discount = ["--gamma", apply_arm(SETTINGS, arm)["advantage"]["gamma"]]
        files = ["--critic", last, *scored, *values, "--out", out / "critic"]
        stage(critic.main, "critic", *files, *discount, arm=arm)
    values += ["--progress", k / 2, "--out", out / "advantages.parquet"]
    stage(advantage.main, "advantage", *scored, *values, arm=arm)
    credited = [*scored, "--advantages", out / "advantages.parquet"]
    stage(train.main, "train", "--policy", before, *credited, "--out", out, arm=arm)
    policy = ["--policy", out / "policy.json", "--questions", start / "questions.parquet"]
    first = ["--start", before / "health.json"] if k > 1 else []
    stage(health.main, "health", *credited, *policy, *first, "--out", out / "health.json")


def counted_turns(arm: str, rollouts: Path, out: Path) -> list[dict]:
    """The turns that have a loss: of questions whose outcomes differ, where the arm filters them."""
    turns = [row for row in storage.read(rollouts, schema.ROLLOUTS).to_pylist() if row["turn"]]
    if not apply_arm(SETTINGS, arm)["train"]["drop_equal_groups"]:
        return turns
    scores = storage.read(out / "scores.parquet", schema.SCORES).to_pylist()
    outcomes = {(row["question_id"], row["outcome"]) for row in scores if row["outcome"] is not None}
    several = Counter(question_id for question_id, _ in outcomes)
    return [row for row in turns if several[row["question_id"]] > 1]


def check_iteration(k: int, arm: str, before: Path, rollouts: Path, out: Path) -> None:
    """One finite credit per turn, a loss on the policy tokens that count, and a policy that went on."""
    turns = [row for row in storage.read(rollouts, schema.ROLLOUTS).to_pylist() if row["turn"]]
    credits = storage.read(out / "advantages.parquet", schema.ADVANTAGES).to_pylist()
    assert [schema.turn_key(row) for row in credits] == [schema.turn_key(row) for row in turns]
    assert all(math.isfinite(row["advantage"]) for row in credits)
    measures = storage.read_json(out / "health.json")
    assert isinstance(measures.pop("warnings"), list)
    assert all(value is None or math.isfinite(value) for value in measures.values())
    assert measures["gold_logprob_start"] < 0
    inputs = {b"rollouts": rollouts, b"scores": out / "scores.parquet", b"values": out / "values.parquet"}
    hashes = {name: storage.sha256(path).encode() for name, path in inputs.items() if path.exists()}
    assert len(hashes) == 2 + has_critic(arm)
    assert hashes.items() <= pq.read_schema(out / "advantages.parquet").metadata.items()
    manifest = storage.read_json(out / "policy.json")
    assert all(math.isfinite(value) for value in manifest["metrics"].values())
    loss_turns = counted_turns(arm, rollouts, out)
    assert manifest["metrics"]["policy_tokens"] == sum(len(row["policy_ids"]) for row in loss_turns)
    assert (manifest["iteration"], manifest["parents"]) == (k, [weights_sha256(before)])
    assert (weights_sha256(out) != weights_sha256(before)) == bool(loss_turns)
    if has_critic(arm):
        fit = storage.read_json(out / "critic/policy.json")["metrics"]
        assert fit["value_loss"] > 0
        assert fit["explained_variance"] is None or fit["explained_variance"] <= 1
    for folder in (out, out / "critic") if has_critic(arm) else (out,):
        assert load_file(folder / STATE)["step"] == k - (not loss_turns)  # of the optimiser


def train_twice(start: Path, first_rollouts: Path, arm: str, out: Path) -> None:
    """Two iterations of an arm, in folders 1 and 2; the first has a signal."""
    iterate(1, start, arm, start / "warm", first_rollouts, out / "1")
    check_iteration(1, arm, start / "warm", first_rollouts, out / "1")
    sha256 = storage.sha256(start / "questions.parquet").encode()
    assert pq.read_schema(out / "1/scores.parquet").metadata[b"questions"] == sha256
    credits = storage.read(out / "1/advantages.parquet", schema.ADVANTAGES)["advantage"].to_pylist()
    assert any(credits)
    second_rollouts = out / "rollouts.parquet"
    play(start, out / "1", second_rollouts, iteration=2, samples=2)
    iterate(2, start, arm, out / "1", second_rollouts, out / "2")
    check_iteration(2, arm, out / "1", second_rollouts, out / "2")


@pytest.mark.parametrize("arm", TRAINED)
def test_an_arm_trains_for_two_iterations(start, first_rollouts, tmp_path, arm):
    train_twice(start, first_rollouts, arm, tmp_path)


def test_the_arm_with_f1_alone_is_grpo_to_the_bit(start, first_rollouts, tmp_path):
    """Disagreement 3: where advantages aren't 0, every file of both iterations is the same."""
    runs = {}
    for arm in ("f1", "grpo"):
        train_twice(start, first_rollouts, arm, tmp_path / arm)
        files = sorted(
            path for path in (tmp_path / arm).rglob("*") if path.is_file() and ".cost." not in path.name
        )
        runs[arm] = {str(path.relative_to(tmp_path / arm)): path.read_bytes() for path in files}
    assert {f"{k}/{name}" for k in (1, 2) for name in ("scores.parquet", "model.safetensors", STATE)} <= set(
        runs["f1"]
    )
    assert runs["f1"] == runs["grpo"]
