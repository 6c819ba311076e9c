"""Every arm of params.yaml on the same small trajectories, from scores over advantages to one update."""

import math
from types import SimpleNamespace

import pytest
import torch
from root import PARAMS_FILE
from small_update import batch
from tiny import tiny

from igpo import advantage, train
from igpo.credit.rewards import at_progress
from igpo.experiment import schema
from igpo.experiment.schema import trajectories
from igpo.training.selection import training_groups
from pipeline import sections
from pipeline.settings import apply_arm, read_params

PARAMS = read_params([PARAMS_FILE])
TRAINED = [name for name, arm in PARAMS["arms"].items() if "rollout" not in (arm or {})]


def tables() -> tuple[list[dict], list[dict]]:
    """Rollouts and scores of two questions with ragged trajectories, random gains and outcomes."""
    rollouts, scores, _ = batch()
    draw = torch.Generator().manual_seed(1)
    for trajectory in trajectories(rollouts):
        for row in trajectory:
            at = rollouts.index(row)
            column = "outcome" if row["stop"] else "step_reward" if row["turn"] else None
            scores[at] |= {column: torch.rand(1, generator=draw).item()} if column else {}
            row["observation"] = f"passage {row['sample'] % 2}" if row["observation_ids"] else None
    return rollouts, scores


def credits_of(arm: str) -> list[dict]:
    params = sections.Advantage(**apply_arm(PARAMS, arm)["advantage"])
    rollouts, scores = tables()
    keys = [{name: row[name] for name in schema.TURN_KEY} for row in rollouts if row["turn"]]
    values = [key | {"value": 0.1} for key in keys]
    return advantage.advantages(rollouts, scores, at_progress(params, 0.5), values)


@pytest.mark.parametrize("arm", TRAINED)
def test_an_arm_trains_on_policy_tokens_alone(arm):
    params = SimpleNamespace(**apply_arm(PARAMS, arm)["train"])
    rollouts, scores = tables()
    credits = credits_of(arm)
    assert all(math.isfinite(row["advantage"]) for row in credits)
    assert any(row["advantage"] for row in credits)
    groups = training_groups(rollouts, scores, credits, params)
    tokens = [segment.ids[i] for group in groups for segment in group.segments for i in segment.targets]
    assert tokens == [token for row in rollouts for token in row["policy_ids"]]
    assert [int(group.spans.sum()) for group in groups] == [group.columns.shape[1] for group in groups]
    model = tiny("llama").train()
    before = [weight.detach().clone() for weight in model.parameters()]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    metrics = train.update(model, optimiser, groups, params)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["policy_tokens"] == len(tokens)
    assert not all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_the_arm_with_f1_alone_has_grpo_s_table_to_the_bit():
    assert repr(credits_of("f1")) == repr(credits_of("grpo"))
    assert credits_of("igpo") != credits_of("grpo")


def test_the_arm_with_information_gain_alone_gives_the_answer_nothing():
    last = {(row["question_id"], row["sample"]): row["advantage"] for row in credits_of("ig")}
    assert set(last.values()) == {0.0}
