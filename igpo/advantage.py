"""Advantages: `rollouts, scores -> advantages.parquet`, one value per turn.

IGPO (paper Eq. 5 and 6): information gains and outcomes are z-scored within their question's group,

    z_t = (r_t - mean) / (std + 1e-6)      std = 0 where the variance is at most 1e-12
    R_t = sum_{k=t..T} gamma^(k-t) z_k

GRPO: the outcome's z-score, for every turn. Turns are told apart by their index, never by a value that
happens to be zero. A group without spread has advantage exactly 0.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from igpo import schema
from retrieval import stage, tables
from retrieval.stage import UserError

Group = list[list[float]]  # rewards of a question's trajectories: information gains, then the outcome
EPSILON = 1e-6
NO_SPREAD = 1e-12


def z_scores(values: Sequence[float], ddof: int) -> list[float]:
    """z-scores with population (ddof 0) or sample (ddof 1) deviation; all 0 without spread."""
    if len(values) <= ddof:
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - ddof)
    if variance <= NO_SPREAD:
        return [0.0] * len(values)
    return [(value - mean) / (math.sqrt(variance) + EPSILON) for value in values]


def discounted(values: Sequence[float], gamma: float) -> list[float]:
    """Reward to go: R_t = values_t + gamma R_{t+1}."""
    backwards = itertools.accumulate(reversed(values), lambda later, value: value + gamma * later)
    return list(backwards)[::-1]


def igpo(group: Group, params: SimpleNamespace) -> tuple[Group, Group]:
    """(normalised rewards, advantages) of a group, shaped as its rewards (paper Eq. 5, 6)."""
    ddof = {"population": 0, "sample": 1}[params.std]
    gains = [gain for rewards in group for gain in rewards[:-1]]
    outcomes = [rewards[-1] for rewards in group]
    if params.normalisation == "joint":
        z = z_scores(gains + outcomes, ddof)
        z_gains, z_outcomes = iter(z[: len(gains)]), iter(z[len(gains) :])
    else:
        z_gains, z_outcomes = iter(z_scores(gains, ddof)), iter(z_scores(outcomes, ddof))
    normalised = [[*itertools.islice(z_gains, len(rewards) - 1), next(z_outcomes)] for rewards in group]
    return normalised, [discounted(values, params.gamma) for values in normalised]


def grpo(group: Group, params: SimpleNamespace) -> tuple[Group, Group]:
    """(normalised rewards, advantages): the outcome's z-score for every turn; information gains count 0."""
    z = z_scores([rewards[-1] for rewards in group], {"population": 0, "sample": 1}[params.std])
    normalised = [[0.0] * (len(rewards) - 1) + [value] for rewards, value in zip(group, z, strict=True)]
    return normalised, [[value] * len(rewards) for rewards, value in zip(group, z, strict=True)]


METHODS: dict[str, Callable[[Group, SimpleNamespace], tuple[Group, Group]]] = {"igpo": igpo, "grpo": grpo}


def turn_reward(row: dict[str, Any], last: bool) -> float:
    """Information gain of a turn, or the outcome of the last. Raises UserError where it is missing."""
    value = row["outcome"] if last else row["info_gain"]
    if value is None or not math.isfinite(value):
        name = "outcome" if last else "info_gain"
        raise UserError(f"scores: {name} of {schema.turn_key(row)} is {value}; score again")
    return value


def advantages(scores: list[dict[str, Any]], params: SimpleNamespace) -> list[dict[str, Any]]:
    """Advantage rows of turns 1…T from sorted score rows of turns 0…T."""
    result = []
    for _, group in itertools.groupby(scores, key=lambda row: row["question_id"]):
        turns = [
            [row for row in rows if row["turn"] > 0]
            for _, rows in itertools.groupby(group, key=lambda row: row["sample"])
        ]
        rewards = [[turn_reward(row, row is rows[-1]) for row in rows] for rows in turns]
        normalised, advantage = METHODS[params.method](rewards, params)
        for rows, *values in zip(turns, rewards, normalised, advantage, strict=True):
            for row, reward, z, credit in zip(rows, *values, strict=True):
                key = {name: row[name] for name in schema.TURN_KEY}
                result.append({**key, "reward": reward, "normalised": z, "advantage": credit})
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def check_keys(rollouts: Path, scores: Path) -> None:
    """Raise UserError unless both tables hold the same turns."""
    tables_read = (tables.read(rollouts, schema.ROLLOUTS), tables.read(scores, schema.SCORES))
    left, right = (t.select(list(schema.TURN_KEY)).to_pylist() for t in tables_read)
    if left != right:
        raise UserError(f"{scores}: its turns are not those of {rollouts}; score these rollouts again")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Compute advantages and write the table."""
    check_keys(args.rollouts, args.scores)
    rows = advantages(tables.read(args.scores, schema.SCORES).to_pylist(), params)
    tables.write(rows, schema.ADVANTAGES, args.out, schema.TURN_KEY, {"scores": tables.sha256(args.scores)})
    zero = sum(row["advantage"] == 0 for row in rows)
    return f"{len(rows)} turns, {zero} with advantage 0"


main = stage.command("advantage", arguments, run, __doc__)

if __name__ == "__main__":
    main()
