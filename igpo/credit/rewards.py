"""Rows of rollouts and scores -> the trajectories that a method gets."""

import dataclasses
import math
from typing import Any

from igpo.credit.methods import Rewards
from igpo.experiment.schema import Rows, turn_key
from pipeline import sections
from pipeline.errors import UserError


def turn_reward(row: dict[str, Any], last: bool) -> float:
    """Step reward of a turn, or the outcome of the last. Raises UserError if it is missing."""
    name = "outcome" if last else "step_reward"
    value = row[name]
    if value is None or not math.isfinite(value):
        raise UserError(f"scores: {name} of {turn_key(row)} is {value}; score again")
    return float(value)


def trajectory(rows: Rows) -> Rewards:
    """What a method sees of a trajectory, from its rows of turns 0…T with scores and any critic's values."""
    observations = [row["observation"] for row in rows]
    return Rewards(
        rows[0]["question_id"],
        [turn_reward(row, row is rows[-1]) for row in rows[1:]],
        [len(row["policy_ids"]) for row in rows[1:]],
        [tuple(observations[:turn]) for turn in range(1, len(rows))],
        [row.get("value") for row in rows[1:]],
    )


def at_progress(params: sections.Advantage, progress: float | None) -> sections.Advantage:
    """The settings with start + (end - start) progress in place of every pair [start, end].

    `progress` is the share of the run's iterations that are done with this one, as in the released code.
    Raises UserError for a pair without it.
    """
    pairs = {name: value for name, value in vars(params).items() if isinstance(value, list)}
    if pairs and progress is None:
        raise UserError(f"advantage: {' and '.join(pairs)} change over a run: give --progress, 0 to 1")
    return dataclasses.replace(
        params, **{name: start + (end - start) * progress for name, (start, end) in pairs.items()}
    )
