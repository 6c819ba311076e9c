"""Advantages: `rollouts, scores -> advantages.parquet`, one value per turn, by a method of `igpo.methods`."""

import argparse
import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from igpo import schema
from igpo.methods import METHODS, WITH_CRITIC, Trajectory
from igpo.schema import Rows, trajectories, turn_key
from retrieval import stage, tables
from retrieval.errors import UserError


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


def with_values(batch: list[Trajectory], rollouts: Rows, values: Rows | None) -> list[Trajectory]:
    """The batch with a critic's values. Raises UserError unless they are of these rollouts."""
    turns = [turn_key(row) for row in rollouts if row["turn"]]
    if values is None or [turn_key(row) for row in values] != turns:
        raise UserError("this method needs --values of these rollouts: run `igpo critic`")
    rest = iter([row["value"] for row in values])
    return [dataclasses.replace(t, values=list(itertools.islice(rest, len(t.rewards)))) for t in batch]


def at_progress(params: SimpleNamespace, progress: float | None) -> SimpleNamespace:
    """The settings with start + (end - start) progress in place of every pair [start, end].

    `progress` is the share of the run's iterations that are done with this one, as in the released code.
    Raises UserError for a pair without it.
    """
    pairs = {name: value for name, value in vars(params).items() if isinstance(value, list)}
    if pairs and progress is None:
        raise UserError(f"advantage: {' and '.join(pairs)} change over a run: give --progress, 0 to 1")
    return SimpleNamespace(
        **vars(params) | {name: start + (end - start) * progress for name, (start, end) in pairs.items()}
    )


def advantages(rollouts: Rows, scores: Rows, params: SimpleNamespace, values: Rows | None = None) -> Rows:
    """Advantage rows of turns 1…T from sorted rows of turns 0…T, and a critic's values of turns 1…T."""
    check_keys(rollouts, scores)
    listed, rest = trajectories(rollouts), iter(scores)
    batch = [trajectory(rows, list(itertools.islice(rest, len(rows)))) for rows in listed]
    if params.method in WITH_CRITIC:
        batch = with_values(batch, rollouts, values)
    normalised, advantage = METHODS[params.method](batch, params)
    result = []
    for rows, known, z, credits in zip(listed, batch, normalised, advantage, strict=True):
        for row, *columns in zip(rows[1:], known.rewards, z, credits, strict=True):
            key = {name: row[name] for name in schema.TURN_KEY}
            result.append(key | dict(zip(("reward", "normalised", "advantage"), columns, strict=True)))
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--values", type=Path, metavar="FILE", help="a critic's, for methods that need one")
    parser.add_argument(
        "--progress",
        type=stage.positive(float, 1),
        metavar="SHARE",
        help="of the run's iterations, for weights that change",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Compute advantages and write the table."""
    rollouts = tables.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = tables.read(args.scores, schema.SCORES).to_pylist()
    values = tables.read(args.values, schema.VALUES).to_pylist() if args.values else None
    rows = advantages(rollouts, scores, at_progress(params, args.progress), values)
    read = {"rollouts": args.rollouts, "scores": args.scores, "values": args.values}
    meta = {name: tables.sha256(path) for name, path in read.items() if path}
    tables.write(rows, schema.ADVANTAGES, args.out, schema.TURN_KEY, meta)
    zero = sum(row["advantage"] == 0 for row in rows)
    return f"{len(rows)} turns, {zero} with advantage 0"


main = stage.command("advantage", arguments, run, __doc__)

if __name__ == "__main__":
    main()
