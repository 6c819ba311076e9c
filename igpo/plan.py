"""What an experiment would cost: trajectories, tokens, memory and disk by formula, time by throughput.

Throughput is tokens of trajectories (prompt, sampled, observed) per second of a stage, its start included, so
it understates what larger runs reach. It comes from Snakemake's benchmark files of earlier runs
(logs/benchmark) or from `--throughput`; without either the time stays unknown.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from igpo import experiment, schema
from igpo.methods import WITH_CRITIC
from retrieval import stage, tables
from retrieval.stage import UserError

PHASES = ("rollout", "score", "train")
MEASURED = (*PHASES, "critic")
STATE_BYTES = 6  # per weight, in bfloat16: what bfloat16 drops of it, AdamW's two moments
WEIGHT_BYTES = 2  # per weight: bfloat16
TRAINED_BYTES = 16  # per weight in training, in fp32: itself, its gradient, AdamW's two moments


def with_comparisons(params: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The parameters with the arms that the comparisons `tables.NAME` train among `run.arms`."""
    run = params["run"]
    compared = [arm for name in names for arm in experiment.compared_arms(params, name)]
    trained = [arm for arm in compared if arm not in run["baselines"]]
    return {**params, "run": {**run, "arms": list(dict.fromkeys([*run["arms"], *trained]))}}


def volume(
    params: Mapping[str, Any], available: Mapping[str, int], length: int | None = None
) -> dict[str, int]:
    """Numbers of runs, updates, trajectories and tokens that the parameters ask for.

    `available` questions (`train`, `test`) count where a section asks for all of them. A trajectory has
    `length` tokens; without it `max_tokens`, which bounds it.
    """
    run = params["run"]
    seeds, steps = len(run["seeds"]), len(run["seeds"]) * run["iterations"]
    arms = {name: stage.apply_arm(params, name) for name in run["arms"]}
    made = {name: steps * _trajectories(arm["rollout"], available, "train") for name, arm in arms.items()}
    tokens = {name: made[name] * (length or arm["rollout"]["max_tokens"]) for name, arm in arms.items()}
    critics = [name for name, arm in arms.items() if arm["advantage"]["method"] in WITH_CRITIC]
    evaluated = stage.merge(params["rollout"], params["evaluate"]["rollout"])
    evaluations = len(experiment.evaluations(run))
    answers = evaluations * _trajectories(evaluated, available, "test")
    return {
        "runs": len(arms) * seeds,
        "of them with a critic": len(critics) * seeds,
        "updates": (len(arms) + len(critics)) * steps,
        "training trajectories": sum(made.values()),
        "training tokens": sum(tokens.values()),
        "of them for critics": sum(tokens[name] for name in critics),
        "evaluations": evaluations,
        "evaluation trajectories": answers,
        "evaluation tokens": answers * (length or evaluated["max_tokens"]),
    }


def _trajectories(rollout: Mapping[str, Any], available: Mapping[str, int], split: str) -> int:
    wanted = rollout["questions"] or available.get(split)
    if wanted is None:
        raise UserError(f"the parameters ask for all {split} questions: give --questions {split}=N")
    return int(min(wanted, available.get(split, wanted)) * rollout["samples"])


def counted(root: Path) -> dict[str, int]:
    """Questions by split, from the question files that are there."""
    files = {split: root / f"results/questions/{split}.parquet" for split in ("train", "test")}
    return {split: len(tables.read(path, schema.QUESTIONS)) for split, path in files.items() if path.exists()}


def disk_bytes(numbers: Mapping[str, int], weights: int, keep_states: bool) -> int:
    """Bytes of all policies and critics and of the training states that are kept, of `weights` weights each.

    Base model and warm start come on top of what the updates write.
    """
    states = numbers["updates"] if keep_states else numbers["runs"] + numbers["of them with a critic"]
    return weights * (WEIGHT_BYTES * (numbers["updates"] + 2) + STATE_BYTES * states)


def hours(numbers: Mapping[str, int], throughput: Mapping[str, float]) -> dict[str, float | None]:
    """Hours of every stage at a throughput in tokens per second; None where that is unknown."""
    tokens = dict.fromkeys(PHASES, numbers["training tokens"]) | {"critic": numbers["of them for critics"]}
    tokens["rollout"] += numbers["evaluation tokens"]
    return {name: n / throughput[name] / 3600 if name in throughput else None for name, n in tokens.items()}


def benchmark_seconds(path: Path) -> float:
    """Wall seconds of a job from its benchmark file."""
    heads, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    return float(dict(zip(heads, values, strict=True))["s"])


def measured(root: Path) -> dict[str, float]:
    """Median tokens per second of each stage in training, from benchmark files; empty where nothing ran."""
    found: dict[str, list[float]] = {}
    for path in sorted((root / "logs/benchmark/runs").glob("*/s*/*/*.tsv")):
        rollouts = root / "results/runs" / Path(*path.parts[-4:-1]) / "rollouts.parquet"
        if path.stem in MEASURED and rollouts.exists():
            table = tables.read(rollouts, schema.ROLLOUTS)
            columns = (table["policy_ids"], table["observation_ids"])
            number = sum(pc.sum(pc.list_value_length(column)).as_py() for column in columns)
            found.setdefault(path.stem, []).append(number / benchmark_seconds(path))
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
        "--table",
        action="append",
        default=[],
        choices=experiment.COMPARISONS,
        help="with the arms of this comparison; repeatable",
    )
    parser.add_argument(
        "--weights", type=float, metavar="N", help="of the model; default: of results/models/base"
    )
    parser.add_argument(
        "--tokens", type=int, metavar="N", help="of a trajectory; default: rollout.max_tokens"
    )
    for option, doc in {"--throughput": "tokens per second of a stage", "--questions": "of a split"}.items():
        parser.add_argument(option, action="append", default=[], metavar="NAME=N", help=f"{doc}; repeatable")


def run(args: argparse.Namespace) -> str:
    """Print the plan."""
    params = with_comparisons(experiment.read(args), args.table)
    sizes = {name: int(n) for name, n in given("--questions", args.questions, ("train", "test")).items()}
    numbers = volume(params, counted(args.root) | sizes, args.tokens)
    lines = {name: f"{value:>18,}" for name, value in numbers.items()}
    base = args.root / "results/models/base"
    size = sum(path.stat().st_size for path in base.glob("model*.safetensors"))
    weights = int(args.weights or size / WEIGHT_BYTES)
    bytes_of = {
        "disk of policies": disk_bytes(numbers, weights, params["run"]["keep_training_state"]),
        "memory of training, without activations": TRAINED_BYTES * weights,
        "memory of rollouts, without cache": WEIGHT_BYTES * weights,
    }
    unknown = "unknown: give --weights N"
    lines |= {name: f"{n / 1e9:>15,.1f} GB" if weights else unknown for name, n in bytes_of.items()}
    throughput = measured(args.root) | given("--throughput", args.throughput, MEASURED)
    for name, value in hours(numbers, throughput).items():
        at = f"at {throughput[name]:,.0f} tokens/s" if value is not None else ""
        lines[f"time of {name}"] = "not measured here" if value is None else f"{value:>16,.2f} h {at}"
    for name, text in lines.items():
        print(f"{name:<40} {text}")
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
