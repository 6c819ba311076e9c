"""Rows of an iteration -> the groups that an update learns from."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

from igpo.experiment.schema import Rows, joined, turn_key
from igpo.training.loss import Columns, token_weights
from igpo.tree.groups import cut, groups, tree
from igpo.tree.segments import Segment
from pipeline import sections
from pipeline.errors import UserError

LOGPROBS = ("old_logprobs", "ref_logprobs")


@dataclass
class TrainingGroup:
    """A question's trajectories: their tokens, and for the M policy tokens among them what the loss needs."""

    segments: list[Segment]
    columns: torch.Tensor  # (5, M): the fields of `loss.Columns`
    spans: torch.Tensor  # numbers of consecutive policy tokens that share a ratio


def counted(rollouts: Rows, scores: Rows, params: sections.Train) -> Rows:
    """The rollouts that have a loss: all, or those of questions whose outcomes differ.

    The latter with `drop_equal_groups`, DAPO's filter (arXiv:2503.14476).
    """
    if not params.drop_equal_groups:
        return rollouts
    outcomes: dict[str, set[float]] = defaultdict(set)
    for row in scores:
        if row["outcome"] is not None:
            outcomes[row["question_id"]].add(row["outcome"])
    return [row for row in rollouts if len(outcomes[row["question_id"]]) > 1]


def dropped(rollouts: Rows, training_rows: Rows) -> dict[str, float]:
    """Numbers of groups, and of policy tokens in them, that are not in `training_rows`."""
    names = {row["question_id"] for row in training_rows}
    rest = [row for row in rollouts if row["question_id"] not in names]
    return {
        "dropped_groups": len({row["question_id"] for row in rest}),
        "dropped_tokens": sum(len(row["policy_ids"]) for row in rest),
    }


def minibatches(rollouts: Rows, number: int) -> list[Rows]:
    """The rollouts in `number` parts of whole questions, or in one for each question if there are fewer.

    Ids begin with a question's type. Each part takes every `number`-th id, so it has a share of all types.
    """
    names = sorted({row["question_id"] for row in rollouts})
    part = {name: place % number for place, name in enumerate(names)}
    numbers = range(min(number, len(names)))
    return [[row for row in rollouts if part[row["question_id"]] == index] for index in numbers]


def clip_scale(row: dict[str, Any], last: bool, spread: float) -> float:
    """A2TGPO's c = 1 + spread (2 sigmoid(z) - 1) of a search turn's normalised reward z; 1 for the answer."""
    return 1.0 if last else 1 + spread * math.tanh(row["normalised"] / 2)  # = 2 sigmoid(z) - 1


def training_groups(
    rollouts: Rows, scores: Rows, credits: Rows, params: sections.Train
) -> list[TrainingGroup]:
    """The batch's groups that have policy tokens, those beyond `batch_tokens` cut into trajectories.

    Raises UserError if a turn has no scores or advantage, or other ones.
    """
    joined_trajectories = joined(rollouts, scores=scores, advantages=credits)
    sizes = [sum(len(row["policy_ids"]) for row in rows) for rows in joined_trajectories]
    weights = iter(token_weights(sizes, params.aggregation, params.norm_tokens))
    result = []
    for group in cut(groups([row for rows in joined_trajectories for row in rows]), params.batch_tokens):
        columns: list[list[float]] = [[] for _ in Columns._fields]
        spans: list[int] = []
        for trajectory in group:
            weight, turns = next(weights), trajectory.rows[1:]
            for row in turns:
                length = len(row["policy_ids"])
                if row["advantage"] is None or {len(row[name] or []) for name in LOGPROBS} != {length}:
                    raise UserError(
                        f"scores, advantages: turn {turn_key(row)}: not of these rollouts' tokens"
                    )
                scale = clip_scale(row, row is turns[-1], params.clip_scale)
                columns[0] += row["old_logprobs"]
                columns[1] += row["ref_logprobs"]
                for column, value in zip(columns[2:], (row["advantage"], weight, scale), strict=True):
                    column += [value] * length
            lengths = [len(row["policy_ids"]) for row in turns]
            spans += {"token": [1] * sum(lengths), "turn": lengths, "sequence": [sum(lengths)]}[params.ratio]
        if sum(spans):
            result.append(
                TrainingGroup(tree(group), torch.tensor(columns), torch.tensor(spans, dtype=torch.long))
            )
    return result
