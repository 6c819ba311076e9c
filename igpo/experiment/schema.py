"""Every table's columns. Read and write with `pipeline.storage`, which checks, sorts and renames into place.

Key of the per-turn tables: (question_id, sample, turn). Turn 0 is the prompt, turns 1…T are the model's.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.settings import nearest

Rows = list[dict[str, Any]]

SPLITS = ("train", "dev", "test")
QUESTIONS = pa.schema(
    [
        ("question_id", pa.string()),  # key
        ("benchmark", pa.string()),
        ("question", pa.string()),
        (
            "answers",
            pa.list_(pa.string()),
        ),  # at least one; the first is the target of information gain
        ("supporting_ids", pa.list_(pa.string())),  # corpus ids in the order of the hops; empty: unknown
        ("hops", pa.int8()),  # 0: unknown
        ("split", pa.string()),  # of SPLITS
        ("type", pa.string()),  # kind of question within its benchmark
    ]
)
QUESTIONS_KEY = ("question_id",)

TURN_KEY = ("question_id", "sample", "turn")
_key = [("question_id", pa.string()), ("sample", pa.int16()), ("turn", pa.int16())]
_floats = pa.list_(pa.float32())

ROLLOUTS = pa.schema(
    [
        *_key,
        ("policy_ids", pa.list_(pa.int32())),  # tokens the policy sampled in this turn; empty at turn 0
        ("policy_logprobs", _floats),  # as the engine sampled them, aligned with policy_ids
        ("observation_ids", pa.list_(pa.int32())),  # tokens the environment appended; turn 0: the prompt
        ("text", pa.string()),  # decoded policy_ids
        ("tool", pa.string()),  # null: no tool call
        ("queries", pa.list_(pa.string())),
        ("hit_ids", pa.list_(pa.string())),  # corpus ids in the order shown
        ("observation", pa.string()),  # the tool's answer as the model reads it
        ("answer", pa.string()),  # last turn of an answered trajectory, else null
        (
            "stop",
            pa.string(),
        ),  # last turn only: answered | format_error | turn_limit | token_limit | error: …
    ]
)

SCORES = pa.schema(
    [
        *_key,
        ("gold_logprob", pa.float32()),  # mean per gold token after this turn; null at T
        ("info_gain", pa.float32()),  # turns 1…T-1: gold_logprob minus that of the turn before
        ("step_reward", pa.float32()),  # turns 1…T-1: what a method is trained on (score.step_reward)
        ("outcome", pa.float32()),  # reward of turn T, format penalty included
        ("f1", pa.float32()),  # turn T
        ("em", pa.float32()),  # turn T
        ("format_ok", pa.bool_()),  # turn T
        ("old_logprobs", _floats),  # under the policy before the update, aligned with policy_ids
        ("ref_logprobs", _floats),  # under the reference policy
    ]
)

VALUES = pa.schema(
    [
        *_key,  # turns 1…T
        ("value", pa.float32()),  # the critic's, ahead of the turn's first token; null for a turn without any
    ]
)

ADVANTAGES = pa.schema(
    [
        *_key,  # turns 1…T
        ("reward", pa.float32()),  # step reward, or outcome at turn T
        ("normalised", pa.float32()),  # by the method: reward, return or step advantage
        ("advantage", pa.float32()),
    ]
)

JUDGEMENTS = pa.schema(
    [
        ("question_id", pa.string()),  # key, with sample
        ("sample", pa.int16()),
        ("mbe", pa.float32()),  # 1 right, 0 wrong; null: the judge gave no verdict
        ("reply", pa.string()),  # the judge's own words; null if it was not asked
    ]
)
JUDGEMENTS_KEY = ("question_id", "sample")

FAILURES = ("format_error", "token_limit", "turn_limit", "error")  # how a trajectory ends without an answer
ANSWERS = ("f1", "em", "f1_squad", "em_squad")  # metrics of an answer
METRICS = (
    *ANSWERS,  # a trajectory without an answer counts 0
    *(f"{name}_format" for name in ANSWERS),  # it counts the format penalty
    "answer_rate",
    "format_failure",  # ended by a malformed turn, the token limit or an error
    *FAILURES,
    "turns",
    "searches",  # queries run
    "gold_recall",  # share of the supporting passages that were shown; null if they are unknown
    "mbe",  # share that a judge model finds right; null without one, and without its verdict
)
PER_QUESTION = pa.schema(
    [("question_id", pa.string()), ("benchmark", pa.string()), ("type", pa.string()), ("hops", pa.int8())]
    + [("covered", pa.bool_())]
    + [(name, pa.float32()) for name in METRICS]
)


def turn_key(row: dict[str, Any]) -> tuple[str, int, int]:
    """(question_id, sample, turn) of a row of any per-turn table."""
    return row["question_id"], row["sample"], row["turn"]


def tokens(rows: Rows) -> int:
    """Tokens of the trajectories in rollout rows: prompt, sampled, observed."""
    return sum(len(row["policy_ids"]) + len(row["observation_ids"]) for row in rows)


def of_benchmarks(questions: Rows, names: Sequence[str], key: str) -> Rows:
    """The questions of the named benchmarks, all if none is named; UserError for a name that has none."""
    benchmarks = sorted({question["benchmark"] for question in questions})
    for name in names:
        if name not in benchmarks:
            raise UserError(f"{key}: no questions of {name!r}; nearest: {nearest(name, benchmarks)!r}")
    return [question for question in questions if not names or question["benchmark"] in names]


def in_turns(questions: Rows) -> Rows:
    """The questions in another order: one of each type, then a second of each, while a type has any left."""
    rank: Counter[str] = Counter()
    ranks = []
    for question in questions:
        ranks.append(rank[question["type"]])
        rank[question["type"]] += 1
    order = sorted(range(len(questions)), key=ranks.__getitem__)
    return [questions[number] for number in order]


def joined(rollouts: Rows, **tables: Rows) -> list[Rows]:
    """Trajectories of turns 0…T, each row with the columns of further tables that its turn has there.

    Advantages and values have turns 1…T, so a row of turn 0 is without their columns. Questions that the
    rollouts lack are left out. Raises UserError if a table lacks a turn, or has one that the rollouts lack.
    """
    rows = {turn_key(row): dict(row) for row in rollouts}
    question_ids = {row["question_id"] for row in rollouts}
    for name, table in tables.items():
        by_key = {turn_key(row): row for row in table if row["question_id"] in question_ids}
        first = 0 if name == "scores" else 1
        missing = [key for key in rows if key[2] >= first and key not in by_key]
        for key in [*missing, *(key for key in by_key if key not in rows)]:
            lacking, having = (name, "the rollouts") if key in rows else ("the rollouts", name)
            raise UserError(
                f"{name}: not of these rollouts, turn {key} of {having} is not in {lacking}: "
                f"make {name} again"
            )
        for key, row in by_key.items():
            rows[key] |= row
    return trajectories(list(rows.values()))


def passages_shown(trajectory: Rows) -> set[str]:
    """Ids of the passages that the policy was shown; what the last turn finds is noted, and not shown."""
    return {name for row in trajectory if row["observation_ids"] for name in row["hit_ids"]}


def trajectories(rows: Rows) -> list[Rows]:
    """Cut sorted rollout rows into trajectories of turns 0…T.

    Raises UserError when a turn is missing or the last one has no `stop`.
    """
    result = []
    for key, turns in itertools.groupby(rows, key=lambda row: (row["question_id"], row["sample"])):
        trajectory = list(turns)
        if [row["turn"] for row in trajectory] != list(range(len(trajectory))) or len(trajectory) < 2:
            raise UserError(f"rollouts: trajectory {key} has turns {[row['turn'] for row in trajectory]}")
        if trajectory[-1]["stop"] is None:
            raise UserError(f"rollouts: trajectory {key} has no stop in its last turn; roll out again")
        result.append(trajectory)
    return result
