"""What an experiment would cost: trajectories, tokens, memory and disk by formula, hours by speed.

A speed is tokens of trajectories (prompt, sampled, observed) per second of a stage, its start included, from
`--throughput` or from earlier runs of this model (`measured.py`). With `--gpu` operation counts tell what one
iteration takes on so many GPUs and which phase bounds it (`gpu_time.py`).
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.experiment import checks, schema
from igpo.reporting import measured
from igpo.reporting.gpu_time import GPUS, Work, iteration_seconds
from igpo.reporting.measured import ALL_PHASES, PHASES, Speed
from igpo.reporting.volume import gpus_of_stages, passage_count, question_counts, volume, with_comparisons
from pipeline import stage, storage
from pipeline.errors import UserError

IN_USE = 4  # models on the disk besides: base model and warm start, the policy that acts and the next
STATE_BYTES = 8  # per weight: what bfloat16 drops of it (2), AdamW's moments (2 and 4)
WEIGHT_BYTES = 2  # per weight: bfloat16
SCORED_BYTES = 4  # per weight: fp32
TRAINED_BYTES = 16  # per weight in training, in fp32: itself, its gradient, AdamW's two moments
VECTOR_BYTES = 4  # per dimension: fp32, also of a compressed index while it is built
TOKEN_BYTES = 16  # per token of a trajectory: its id, three log-probabilities; text is less once compressed
Line = tuple[str, str, str]  # name, value, note


def disk_bytes(numbers: Mapping[str, int], weights: int, keep_states: bool) -> int:
    """Bytes of the policies, critics and training states that are kept, of `weights` weights each.

    Base model and warm start come on top of what the updates write, and while a run goes
    on the policy that acts and the next.
    """
    critics = numbers["of them with a critic"]
    if keep_states:
        states, critics = numbers["updates"], numbers["critic updates"]
    else:
        states = numbers["runs"] + critics
    return weights * (WEIGHT_BYTES * (numbers["policies kept"] + critics + IN_USE) + STATE_BYTES * states)


def hours(numbers: Mapping[str, int], throughput: Mapping[str, float]) -> dict[str, float | None]:
    """Hours of every stage at a throughput in tokens per second; None if that is unknown."""
    tokens = dict.fromkeys(PHASES, numbers["training tokens"]) | {"critic": numbers["of them for critics"]}
    tokens["rollout"] += numbers["evaluation tokens"] + numbers["validation tokens"]
    return {name: n / throughput[name] / 3600 if name in throughput else None for name, n in tokens.items()}


def expected_speeds(speeds: Mapping[str, Speed], gpus: Mapping[str, int]) -> dict[str, tuple[float, str]]:
    """Tokens per second of every measured stage on so many GPUs, and where from.

    Time per token is taken to shrink with the GPUs.
    """
    result = {}
    for name, speed in speeds.items():
        device = speed.device or "an unknown machine"
        how = f"{'measured' if speed.gpus == gpus[name] else 'scaled from what was measured'} on {device}"
        result[name] = (speed.tokens * gpus[name] / speed.gpus, how)
    return result


def planned_weights(params: Mapping[str, Any], root: Path) -> int:
    """Weights of the model that section `model` names, here or in `results/`; 0 if it is in neither."""
    base, source = root / "results/models/base", params["model"]["source"]
    manifest = base / "policy.json"
    ours = manifest.exists() and storage.read_json(manifest).get("source") == source
    return measured.weights_in(base if ours else Path(source))


def dimensions(encoder: str) -> int | None:
    """Length of an encoder's vectors; None if its folder is not here."""
    from retrieval.encoder.folder import encoder_folder

    try:
        return int(storage.read_json(encoder_folder(encoder) / "config.json")["hidden_size"])
    except UserError:
        return None


def data_bytes(
    params: Mapping[str, Any], root: Path, passages: int
) -> Iterator[tuple[str, float | None, str]]:
    """(name, bytes, how they are known) of corpus and indexes; None for bytes that nothing here tells."""
    each = measured.passage_bytes(root, params["index"])
    for name in ("corpus", *(f"index {kind}" for kind in params["index"]["kinds"])):
        if not passages:
            yield name, None, "unknown: give --passages N"
        elif name in each:
            how = f"{passages:,} passages of {each[name]:,.0f} bytes, as in results/"
            yield name, passages * each[name], how
        elif name == "index dense" and (length := dimensions(params["index"]["encoder"])):
            how = f"{passages:,} vectors of {length} x {VECTOR_BYTES} bytes"
            yield name, passages * length * VECTOR_BYTES, how
        else:
            yield name, None, "unknown: make one of some passages here first"


def disk_lines(
    params: Mapping[str, Any], root: Path, numbers: Mapping[str, int], passages: int, weights: int
) -> list[Line]:
    """Disk of all that a run leaves, and its sum."""
    tokens = sum(numbers[f"{name} tokens"] for name in ("training", "validation", "evaluation"))
    each = measured.token_bytes(root)
    note = f"{each or TOKEN_BYTES:.1f} bytes a token" + (", as in results/" if each else "")
    policies = disk_bytes(numbers, weights, params["run"]["keep_training_state"])
    parts: list[tuple[str, float | None, str]] = [
        *data_bytes(params, root, passages),
        ("trajectories and scores", tokens * (each or TOKEN_BYTES), note),
        ("policies", policies, "") if weights else ("policies", None, "unknown: give --weights N"),
    ]
    return [
        *((f"disk of {name}", gigabytes(size), how) for name, size, how in parts),
        (
            "disk in total",
            gigabytes(sum(size or 0 for _, size, _ in parts)),
            without([name for name, size, _ in parts if size is None]),
        ),
    ]


def on_each(size: float, gpus: int) -> str:
    """What a sharded model takes on each GPU."""
    return "on one" if gpus == 1 else f"{gigabytes(size / gpus)} on each of {gpus}"


def memory_lines(numbers: Mapping[str, int], weights: int, gpus: Mapping[str, int]) -> list[Line]:
    """GPU memory of the stages that hold the model, on `gpus` each."""
    if not weights:
        return [("memory", "", "unknown: give --weights N")]
    training = TRAINED_BYTES * weights
    lines = [
        ("of training, without activations", training, on_each(training, gpus["train"])),
        ("of scoring, likewise", SCORED_BYTES * weights, on_each(SCORED_BYTES * weights, gpus["score"])),
        ("of rollouts, without cache", WEIGHT_BYTES * weights, ""),
    ]
    if numbers["of them with a critic"]:
        lines.insert(1, ("of a critic's training, likewise", training, on_each(training, gpus["critic"])))
    return [(f"memory {name}", gigabytes(size), note) for name, size, note in lines]


def time_lines(
    numbers: Mapping[str, int], throughput: Mapping[str, tuple[float, str]], gpus: Mapping[str, int]
) -> list[Line]:
    """GPU hours of every stage, their sum, and how each is known."""
    needs = hours(numbers, {name: speed for name, (speed, _) in throughput.items()})
    if not numbers["of them for critics"]:
        del needs["critic"]
    totals = {name: value * gpus[name] for name, value in needs.items() if value is not None}
    lines = []
    for name, value in needs.items():
        if value is None:
            how = f"unknown: run an iteration here, or give --throughput {name}=N"
            lines.append((f"GPU hours of {name}", "", how))
        else:
            speed, source = throughput[name]
            how = f"{value:,.2f} h on {gpus[name]}, at {speed:,.1f} tokens/s {source}"
            lines.append((f"GPU hours of {name}", f"{totals[name]:,.2f} h", how))
    return [
        *lines,
        (
            "GPU hours in total",
            f"{sum(totals.values()):,.2f} h",
            without([*sorted(needs.keys() - totals), "indexing"]),
        ),
    ]


def gpu_lines(
    params: Mapping[str, Any], numbers: Mapping[str, int], weights: int, args: argparse.Namespace
) -> list[Line]:
    """An iteration on `args.nodes` machines of `args.gpus` GPUs, what bounds it; all runs one by one."""
    if not weights:
        raise UserError("--gpu: the model's weights are unknown: give --weights N")
    if not numbers["training trajectories"]:
        raise UserError("--gpu: nothing is trained (run.arms, run.iterations): leave it out")
    gpu, gpus = GPUS[args.gpu], args.gpus * args.nodes
    tokens = numbers["training tokens"] / numbers["training trajectories"]
    own = args.sampled or min(tokens, params["rollout"]["max_turns"] * params["rollout"]["turn_tokens"])
    steps = numbers["runs"] * params["run"]["iterations"]
    each = numbers["training trajectories"] / steps
    work = Work(each, tokens, min(own, tokens), params["rollout"]["at_once"] or each)
    answers = work._replace(
        trajectories=numbers["evaluation trajectories"] + numbers["validation trajectories"]
    )
    lines = []
    for sharded in (True, False):
        how = "with shards" if sharded else "without shards"
        seconds = iteration_seconds(params, work, weights, gpu, gpus, sharded)
        evaluation = iteration_seconds(params, answers, weights, gpu, gpus, sharded)["rollout"]
        whole = (steps * sum(seconds.values()) + evaluation) / 3600
        slowest = max(seconds, key=seconds.__getitem__)
        parts = ", ".join(f"{name} {value:,.0f} s" for name, value in seconds.items())
        share = seconds[slowest] / sum(seconds.values())
        lines += [
            (
                f"an iteration {how}",
                f"{sum(seconds.values()):,.0f} s",
                f"{parts}: {slowest} bounds it ({share:.0%})",
            ),
            (f"all runs {how}", f"{whole:,.0f} h", f"{whole * gpus:,.0f} GPU hours on {gpus} x {args.gpu}"),
        ]
    fits = TRAINED_BYTES * weights / gpus < gpu.memory
    note = f"{on_each(TRAINED_BYTES * weights, gpus)}, which has {gigabytes(gpu.memory)}"
    return [*lines, ("training fits" if fits else "training does not fit", "", note)]


def gigabytes(size: float | None) -> str:
    """A number of bytes as text; empty if it is unknown."""
    return "" if size is None else f"{size / 1e9:,.1f} GB"


def without(names: Sequence[str]) -> str:
    """Words for the names that a sum leaves out; empty without any."""
    return f"without {', '.join(names)}" if names else ""


def parse_numbers(option: str, items: list[str], names: Sequence[str]) -> dict[str, float]:
    """Parse the `NAME=NUMBER` items of an option; the numbers are above 0."""
    result = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            result[name] = stage.positive(float)(value)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{option} {item}: {error}; give NAME=NUMBER, as in {names[0]}=5") from None
        if name not in names:
            raise UserError(f"{option} {item}: there is no {name!r}, only {', '.join(names)}")
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="folder that holds results/")
    parser.add_argument(
        "--table",
        action="append",
        default=[],
        choices=checks.COMPARISONS,
        help="with the arms of this comparison; repeatable",
    )
    parser.add_argument(
        "--weights",
        type=stage.positive(float),
        metavar="N",
        help="of the model; default: counted if it is here",
    )
    parser.add_argument(
        "--passages",
        type=stage.positive(float),
        metavar="N",
        help="of the corpus; default: of results/corpus.parquet",
    )
    parser.add_argument(
        "--tokens", type=stage.positive(), metavar="N", help="of a trajectory; default: rollout.max_tokens"
    )
    parser.add_argument("--gpu", choices=GPUS, help="hours on GPUs of this kind, by operation counts")
    parser.add_argument("--gpus", type=stage.positive(), default=8, metavar="N", help="of a machine")
    parser.add_argument("--nodes", type=stage.positive(), default=1, metavar="N", help="machines")
    parser.add_argument(
        "--sampled", type=stage.positive(), metavar="N", help="tokens of a trajectory that the model samples"
    )
    for option, doc in {"--throughput": "tokens per second of a stage", "--questions": "of a split"}.items():
        parser.add_argument(option, action="append", default=[], metavar="NAME=N", help=f"{doc}; repeatable")


def run(args: argparse.Namespace) -> str:
    """Print the plan."""
    params = with_comparisons(checks.read(args), args.table)
    sizes = {name: int(n) for name, n in parse_numbers("--questions", args.questions, schema.SPLITS).items()}
    numbers = volume(params, question_counts(args.root) | sizes, args.tokens)
    weights = int(args.weights or planned_weights(params, args.root))
    passages = int(args.passages or passage_count(args.root))
    gpus = gpus_of_stages(params)
    then = measured.weights_in(args.root / "results/models/base")
    throughput = expected_speeds(measured.speeds(args.root), gpus) if then and then == weights else {}
    for name, value in parse_numbers("--throughput", args.throughput, ALL_PHASES).items():
        throughput[name] = (value, "as given")
    lines = [
        *((name, f"{value:,}", "") for name, value in numbers.items()),
        *disk_lines(params, args.root, numbers, passages, weights),
        *memory_lines(numbers, weights, gpus),
        *(time_lines(numbers, throughput, gpus) if throughput or not args.gpu else []),
        *(gpu_lines(params, numbers, weights, args) if args.gpu else []),
    ]
    for line in lines:
        print("{:<40} {:>18}  {}".format(*line).rstrip())
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
