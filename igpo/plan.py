"""What an experiment would cost: trajectories, tokens and disk by formula, time from what was measured here.

Time comes from Snakemake's benchmark files of earlier runs (logs/benchmark) or from `--seconds`; without
either it stays unknown. Seconds per trajectory hold the start of the engine, so they overstate larger runs.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from igpo import experiment, schema
from retrieval import stage, tables
from retrieval.stage import UserError

PER_TRAJECTORY = ("rollout", "score", "train")
STATE_BYTES = 6  # per weight, in bfloat16: what bfloat16 drops of it, AdamW's two moments
WEIGHT_BYTES = 2  # per weight: bfloat16


def volume(params: Mapping[str, Any], available: Mapping[str, int]) -> dict[str, int]:
    """Numbers of runs, policies, trajectories and tokens (an upper bound) that the parameters ask for.

    `available` questions (`train`, `test`) count where a section asks for all of them.
    """
    run = params["run"]
    runs = len(run["arms"]) * len(run["seeds"])
    trajectories, tokens = 0, 0
    for arm in run["arms"]:
        rollout = stage.apply_arm(params, arm)["rollout"]
        number = (
            _questions(rollout, available, "train")
            * rollout["samples"]
            * len(run["seeds"])
            * run["iterations"]
        )
        trajectories, tokens = trajectories + number, tokens + number * rollout["max_tokens"]
    evaluated = stage.merge(params["rollout"], params["evaluate"]["rollout"])
    evaluations = len(experiment.evaluations(run))
    return {
        "runs": runs,
        "policy updates": runs * run["iterations"],
        "training trajectories": trajectories,
        "training tokens at most": tokens,
        "evaluations": evaluations,
        "evaluation trajectories": evaluations
        * _questions(evaluated, available, "test")
        * evaluated["samples"],
    }


def _questions(rollout: Mapping[str, Any], available: Mapping[str, int], split: str) -> int:
    wanted = rollout["questions"] or available.get(split)
    if wanted is None:
        raise UserError(f"the parameters ask for all {split} questions: give --questions {split}=N")
    return min(wanted, available.get(split, wanted))


def counted(root: Path) -> dict[str, int]:
    """Questions by split, from the question files that are there."""
    files = {split: root / f"results/questions/{split}.parquet" for split in ("train", "test")}
    return {split: len(tables.read(path, schema.QUESTIONS)) for split, path in files.items() if path.exists()}


def disk_bytes(numbers: Mapping[str, int], weights: int, keep_states: bool) -> int:
    """Bytes of all policies and of the training states that are kept, for a model of `weights` weights."""
    states = numbers["policy updates"] if keep_states else numbers["runs"]
    return weights * (WEIGHT_BYTES * (numbers["policy updates"] + 2) + STATE_BYTES * states)


def benchmark_seconds(path: Path) -> float:
    """Wall seconds of a job from its benchmark file."""
    heads, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    return float(dict(zip(heads, values, strict=True))["s"])


def measured(root: Path) -> dict[str, float]:
    """Median seconds per training trajectory of each stage, from benchmark files; empty where nothing ran."""
    found: dict[str, list[float]] = {}
    for path in sorted((root / "logs/benchmark/runs").glob("*/s*/*/*.tsv")):
        rollouts = root / "results/runs" / Path(*path.parts[-4:-1]) / "rollouts.parquet"
        if path.stem in PER_TRAJECTORY and rollouts.exists():
            turns = tables.read(rollouts, schema.ROLLOUTS)["turn"]
            number = pc.sum(pc.equal(turns, 0)).as_py()
            found.setdefault(path.stem, []).append(benchmark_seconds(path) / number)
    return {name: statistics.median(values) for name, values in found.items()}


def given(option: str, items: list[str], names: Sequence[str]) -> dict[str, float]:
    """Parse the `NAME=NUMBER` items of an option."""
    result = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            result[name] = float(value)
        except ValueError:
            raise UserError(f"{option} {item}: expected NAME=NUMBER, as in {names[0]}=5") from None
        if name not in names:
            raise UserError(f"{option} {item}: there is no {name!r}, only {', '.join(names)}")
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    experiment.arguments(parser)
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="folder with results/ and logs/"
    )
    parser.add_argument(
        "--weights", type=float, metavar="N", help="of the model; default: of results/models/base"
    )
    for option, doc in {"--seconds": "per trajectory of a stage", "--questions": "of a split"}.items():
        parser.add_argument(option, action="append", default=[], metavar="NAME=N", help=f"{doc}; repeatable")


def run(args: argparse.Namespace) -> str:
    """Print the plan."""
    params = experiment.read(args)
    sizes = {name: int(n) for name, n in given("--questions", args.questions, ("train", "test")).items()}
    numbers = volume(params, counted(args.root) | sizes)
    for name, value in numbers.items():
        print(f"{name:<26} {value:>16,}")
    base = args.root / "results/models/base"
    size = sum(path.stat().st_size for path in base.glob("model*.safetensors"))
    weights = args.weights or size / WEIGHT_BYTES
    size = disk_bytes(numbers, int(weights), params["run"]["keep_training_state"])
    disk = f"{size / 1e9:,.1f} GB" if weights else "unknown: give --weights N"
    print(f"{'disk of policies':<26} {disk:>16}")
    seconds = measured(args.root) | given("--seconds", args.seconds, PER_TRAJECTORY)
    for name in PER_TRAJECTORY:
        hours = numbers["training trajectories"] * seconds.get(name, 0) / 3600
        text = (
            f"{hours:,.2f} h at {seconds[name]:.2f} s a trajectory"
            if name in seconds
            else "not measured here"
        )
        print(f"{'time of ' + name:<26} {text}")
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
