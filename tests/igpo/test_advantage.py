"""The advantage stage: what a method is given, and rows that don't fit."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from golden import CASES, EXPECTED, WEIGHTED
from reward_rows import table_rows
from small_batch import DEFAULTS

from igpo import advantage
from igpo.advantage import advantages
from igpo.credit.rewards import at_progress, trajectory
from igpo.experiment import schema
from igpo.experiment.schema import joined
from pipeline import sections, storage
from pipeline.errors import UserError

PARAMS = sections.Advantage(**DEFAULTS, method="igpo")


def ragged() -> tuple[list[dict], list[dict]]:
    tables = [table_rows(name, rewards) for name, rewards in CASES["ragged"].items()]
    return [row for rows, _ in tables for row in rows], [row for _, rows in tables for row in rows]


def test_a_row_for_every_turn_of_the_model_with_its_rewards():
    rows = advantages(*ragged(), PARAMS)
    expected = EXPECTED["ragged", "separate", 1.0]
    values = [value for group in expected.values() for turns in group for value in turns]
    assert [row["advantage"] for row in rows] == pytest.approx(values, abs=2e-6)
    rewards = [value for group in CASES["ragged"].values() for turns in group for value in turns]
    assert [row["reward"] for row in rows] == rewards
    assert [row["turn"] for row in rows[:10]] == [1, 2, 3, 1, 2, 1, 2, 3, 4, 1]


def test_a_method_sees_tokens_and_what_was_shown_ahead_of_each_turn():
    rollouts, scores = table_rows("q", [[0.3, 0.1, 1.0]])
    rewards = trajectory(*joined(rollouts, scores=scores))
    assert rewards.tokens == [1, 2, 3]
    assert rewards.states == [(None,), (None, "hit 1"), (None, "hit 1", "hit 2")]


def test_weights_move_from_start_to_end_over_a_run():
    scheduled = replace(PARAMS, gain_weight=[1.0, 0.5], outcome_weight=[0.5, 1.0])

    def credits(progress: float) -> list[float]:
        rows = advantages(*ragged(), at_progress(scheduled, progress))
        return [row["advantage"] for row in rows]

    start = [value for row in WEIGHTED["ragged"] for value in row]
    assert credits(0.0) == pytest.approx(start, abs=2e-6)
    middle = [0.75 * row["advantage"] for row in advantages(*ragged(), PARAMS)]
    assert credits(0.5) == pytest.approx(middle)
    end = [
        2 * half - first for half, first in zip(middle, start, strict=True)
    ]  # credits are linear in weights
    assert credits(1.0) == pytest.approx(end, abs=4e-6)
    assert at_progress(PARAMS, None) == PARAMS
    with pytest.raises(UserError, match="gain_weight and outcome_weight change over a run: give --progress"):
        at_progress(scheduled, None)


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
@pytest.mark.parametrize(("turn", "name"), [(1, "step_reward"), (2, "outcome")])
def test_a_missing_reward_is_an_error(turn, name, value):
    """Disagreement 19: the released code falls back to the outcome, silently."""
    rollouts, scores = table_rows("g0", [[0.1, 1.0]])
    scores[turn][name] = value
    with pytest.raises(UserError, match=rf"{name} of \('g0', 0, {turn}\) is {value}; score again"):
        advantages(rollouts, scores, PARAMS)


def test_scores_of_other_rollouts_are_refused(tmp_path):
    rollouts, scores = ragged()
    storage.write(rollouts, schema.ROLLOUTS, tmp_path / "r", schema.TURN_KEY)
    storage.write(scores[:-1], schema.SCORES, tmp_path / "s", schema.TURN_KEY)
    files = {"rollouts": tmp_path / "r", "scores": tmp_path / "s", "values": None, "out": tmp_path / "a"}
    with pytest.raises(UserError, match="make scores again"):
        advantage.run(SimpleNamespace(**files, progress=None), PARAMS)
    assert not files["out"].exists()
