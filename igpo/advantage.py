"""`rollouts, scores -> advantages.parquet`: every turn's advantage by a method of `igpo.credit.methods`."""

import argparse
from pathlib import Path

from igpo.credit.methods import METHODS, WITH_CRITIC
from igpo.credit.rewards import at_progress, trajectory
from igpo.experiment import schema
from igpo.experiment.schema import Rows, joined
from pipeline import sections, stage, storage
from pipeline.errors import UserError


def advantages(rollouts: Rows, scores: Rows, params: sections.Advantage, values: Rows | None = None) -> Rows:
    """Advantage rows of turns 1…T from sorted rows of turns 0…T, and a critic's values of turns 1…T."""
    critic = params.method in WITH_CRITIC
    if critic and values is None:
        raise UserError("this method needs --values of these rollouts: run `igpo critic`")
    trajectories = joined(
        rollouts, scores=scores, **({"values": values} if critic and values is not None else {})
    )
    batch = list(map(trajectory, trajectories))
    z_values, advantage = METHODS[params.method](batch, params)
    result = []
    for rows, item, z, credits in zip(trajectories, batch, z_values, advantage, strict=True):
        for row, *columns in zip(rows[1:], item.rewards, z, credits, strict=True):
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


def run(args: argparse.Namespace, params: sections.Advantage) -> str:
    """Compute advantages and write the table."""
    rollouts = storage.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = storage.read(args.scores, schema.SCORES).to_pylist()
    values = storage.read(args.values, schema.VALUES).to_pylist() if args.values else None
    rows = advantages(rollouts, scores, at_progress(params, args.progress), values)
    inputs = {"rollouts": args.rollouts, "scores": args.scores, "values": args.values}
    meta = {name: storage.sha256(path) for name, path in inputs.items() if path}
    storage.write(rows, schema.ADVANTAGES, args.out, schema.TURN_KEY, meta)
    zero = sum(row["advantage"] == 0 for row in rows)
    return f"{len(rows)} turns, {zero} with advantage 0"


main = stage.command(sections.Advantage, arguments, run, __doc__)

if __name__ == "__main__":
    main()
