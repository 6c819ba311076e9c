"""Advantages: `rollouts, scores -> advantages.parquet`, one value per turn, by a method of `igpo.methods`."""

import argparse
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from igpo import schema
from igpo.methods import METHODS, Trajectory
from igpo.schema import Rows, trajectories, turn_key
from retrieval import stage, tables
from retrieval.stage import UserError


def turn_reward(row: dict[str, Any], last: bool) -> float:
    """Step reward of a turn, or the outcome of the last. Raises UserError where it is missing."""
    name = "outcome" if last else "info_gain"
    value = row[name]
    if value is None or not math.isfinite(value):
        raise UserError(f"scores: {name} of {turn_key(row)} is {value}; score again")
    return value


def trajectory(rows: Rows, scores: Rows) -> Trajectory:
    """What a method sees of a trajectory, from its rollout and score rows of turns 0…T."""
    observations = [row["observation"] for row in rows]
    return Trajectory(
        rows[0]["question_id"],
        [turn_reward(row, row is scores[-1]) for row in scores[1:]],
        [len(row["policy_ids"]) for row in rows[1:]],
        [tuple(observations[:turn]) for turn in range(1, len(rows))],
    )


def check_keys(rollouts: Rows, scores: Rows) -> None:
    """Raise UserError unless both tables hold the same turns."""
    if [turn_key(row) for row in rollouts] != [turn_key(row) for row in scores]:
        raise UserError("scores: its turns are not those of the rollouts; score these rollouts again")


def advantages(rollouts: Rows, scores: Rows, params: SimpleNamespace) -> Rows:
    """Advantage rows of turns 1…T from sorted rows of turns 0…T."""
    check_keys(rollouts, scores)
    listed, rest = trajectories(rollouts), iter(scores)
    batch = [trajectory(rows, list(itertools.islice(rest, len(rows)))) for rows in listed]
    normalised, advantage = METHODS[params.method](batch, params)
    result = []
    for rows, known, z, credits in zip(listed, batch, normalised, advantage, strict=True):
        for row, *values in zip(rows[1:], known.rewards, z, credits, strict=True):
            key = {name: row[name] for name in schema.TURN_KEY}
            result.append(key | dict(zip(("reward", "normalised", "advantage"), values, strict=True)))
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Compute advantages and write the table."""
    rollouts = tables.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    rows = advantages(rollouts, tables.read(args.scores, schema.SCORES).to_pylist(), params)
    tables.write(rows, schema.ADVANTAGES, args.out, schema.TURN_KEY, {"scores": tables.sha256(args.scores)})
    zero = sum(row["advantage"] == 0 for row in rows)
    return f"{len(rows)} turns, {zero} with advantage 0"


main = stage.command("advantage", arguments, run, __doc__)

if __name__ == "__main__":
    main()
