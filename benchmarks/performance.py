"""What the method costs, beside plain ways to do the same, in one run -> docs/results/performance.md.

    python -m benchmarks.performance --part scoring training

A part's measurements alternate; its rows go to results/benchmarks/<part>.json, and the page shows every part
that was measured. Timed on an otherwise idle machine.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import finished_run, iteration, page, plain, update
from benchmarks.measure import Load, alternate, machine, matmul, matmul_flops, measured, ratios
from benchmarks.workload import Shape, forced, rollouts
from igpo import model as model_stage
from igpo import train, trees
from igpo.loss import Columns
from igpo.model import load, load_tokenizer
from igpo.packing import flatten, pack
from igpo.tree_pass import logprobs
from retrieval import stage, tables
from retrieval.encoder import compute_dtype

WORK = Path("results/benchmarks")


@dataclass(frozen=True)
class Size:
    """How much a run measures. `pair`: the trajectories of one pack, of which a group of 8 has four."""

    repeats: int
    pair: Shape
    ragged: Shape
    small: Shape
    turns: tuple[int, ...]
    groups: tuple[int, ...]
    observations: tuple[int, ...]
    memory_groups: tuple[int, ...]
    samples: tuple[int, int]  # a question's trajectories in part `rollouts`: short ones, long ones
    long_turns: int


SIZES = {
    "full": Size(
        repeats=3,
        pair=Shape((10, 10)),
        ragged=Shape((6, 2)),
        small=Shape((2, 3), 100),
        turns=(2, 4, 6, 8, 10),
        groups=(1, 2, 4, 8),
        observations=(100, 500, 1000, 1500),
        memory_groups=(2, 8),
        samples=(8, 2),
        long_turns=10,
    ),
    "small": Size(
        repeats=1,
        pair=Shape((2, 2), 40, 20, 30),
        ragged=Shape((3, 1), 40, 20, 30),
        small=Shape((1, 2), 40, 20, 30),
        turns=(1, 2),
        groups=(1, 2),
        observations=(20, 60),
        memory_groups=(1,),
        samples=(1, 2),
        long_turns=2,
    ),
}


def scoring(folder: Path, size: Size) -> list[page.Row]:
    """Old log-probabilities alone, with information gain, and one forward pass per turn."""
    tokenizer, dtype = load_tokenizer(folder), compute_dtype()
    tree, sdpa = load(folder, dtype, "tree").eval(), load(folder, dtype, "sdpa").eval()
    rows = rollouts(size.pair, tokenizer)
    both = update.scoring_trees(rows, tokenizer, information_gain=True)
    alone = update.scoring_trees(rows, tokenizer, information_gain=False)
    count = len(size.pair.turns)
    first = rollouts(replace(size.pair, turns=size.pair.turns[:1]), tokenizer)
    seconds = alternate(
        {
            "old": lambda: update.scored(tree, alone),
            "old and gain": lambda: update.scored(tree, both),
            "one pass per turn": lambda: plain.gold_by_turn(sdpa, first, forced(tokenizer)),
        },
        size.repeats,
    )
    added = [a - b for a, b in zip(seconds["old and gain"], seconds["old"], strict=True)]
    naive = [count * value for value in seconds["one pass per turn"]]
    return [
        page.Row(
            "old log-probabilities + information gain / old alone",
            "≤ 1.10",
            ratios(seconds["old and gain"], seconds["old"]),
        ),
        page.Row(
            "time that information gain adds: one forward per turn / ours", "≥ 30", ratios(naive, added)
        ),
        page.Row("old log-probabilities alone, tokens/s", None, [tokens(alone) / s for s in seconds["old"]]),
        *exactness(folder, first, tokenizer),
    ]


def tokens(trees: list[Any]) -> int:
    """Tokens that trees hold together."""
    return sum(len(segment.ids) for segment in flatten(trees))


def exactness(folder: Path, rows: Any, tokenizer: Any) -> list[page.Row]:
    """Largest difference of a turn's mean gold log-probability to the naive passes."""
    listed = update.forced_groups(rows, tokenizer)
    turns = len(listed[0][0].branches)

    def ours(dtype: torch.dtype) -> list[float]:
        model = load(folder, dtype, "tree").eval()
        values = update.scored(model, [trees.tree(group) for group in listed])
        return [sum(part) / len(part) for part in values[-turns:]]

    def naive(dtype: torch.dtype) -> list[float]:
        return plain.gold_by_turn(load(folder, dtype, "sdpa").eval(), rows, forced(tokenizer))[0]

    def apart(left: list[float], right: list[float]) -> list[float]:
        return [max(abs(a - b) for a, b in zip(left, right, strict=True))]

    exact = naive(torch.float32)
    found = [
        page.Row(
            "turn's mean gold log-probability, largest difference to the naive reference, fp32",
            "≤ 1e-5",
            apart(ours(torch.float32), exact),
        )
    ]
    if compute_dtype() is torch.bfloat16:
        own = apart(naive(torch.bfloat16), exact)
        found.append(
            page.Row(
                "the same in bf16, to the naive reference in fp32",
                f"≤ {own[0]:.3g}",
                apart(ours(torch.bfloat16), exact),
            )
        )
    return found


def training(folder: Path, size: Size) -> list[page.Row]:
    """Gradients of a batch: packed, and padded with full logits."""
    tokenizer = load_tokenizer(folder)
    tree, sdpa = (load(folder, torch.float32, kind).train() for kind in ("tree", "sdpa"))
    batches = {
        name: update.training_groups(tree, rollouts(shape, tokenizer), tokenizer)
        for name, shape in (("equal", size.pair), ("ragged", size.ragged))
    }
    equal, ragged = batches["equal"], batches["ragged"]

    def ours(trees: Any) -> Callable[[], object]:
        return lambda: (tree.zero_grad(), train.accumulate(tree, trees, update.PARAMS))

    def padded(trees: Any) -> Callable[[], object]:
        return lambda: (sdpa.zero_grad(), plain.padded_gradient(sdpa, trees, 2, update.PARAMS))

    seconds = alternate(
        {
            "matmul": matmul(compute_dtype()),
            "ours": ours(equal[0]),
            "padded": padded(equal[1][:1]),
            "ours, ragged": ours(ragged[0]),
            "padded, ragged": padded(ragged[1]),
        },
        size.repeats,
    )

    def rates(trees: Any, name: str) -> list[float]:
        """Trajectory tokens per second: prompts count once per trajectory, padding never."""
        total = sum(len(segment.ids) for group in trees for segment in group.segments)
        return [total / value for value in seconds[name]]

    one, two = rates(equal[1], "ours"), rates(equal[1][:1], "padded")
    peak = [matmul_flops() / value for value in seconds["matmul"]]
    flops = sum(update.training_flops(tree, pack(group.segments)) for group in equal[0])
    precision = str(compute_dtype()).removeprefix("torch.")
    return [
        page.Row(
            "training tokens/s, all of 10 turns: ours / batch with full logits", "≥ 2.5", ratios(one, two)
        ),
        page.Row(
            "training tokens/s, of 6 and 2 turns: ours / padded batch with full logits",
            "≥ 2.5",
            ratios(rates(ragged[1], "ours, ragged"), rates(ragged[1], "padded, ragged")),
        ),
        page.Row("training tokens/s, all of 10 turns: ours", None, one),
        page.Row(
            f"training FLOP rate / {precision} matmul peak",
            "≥ 0.5",
            ratios([flops / s for s in seconds["ours"]], peak),
        ),
        page.Row(f"{precision} matmul peak, GFLOP/s", None, [value / 1e9 for value in peak]),
        page.Row(
            "fp32 gradient of the whole model, packed / one by one, relative difference",
            "≤ 1e-6",
            [gradient_difference(tree, sdpa, size, tokenizer)],
        ),
    ]


def gradient_difference(tree: Any, sdpa: Any, size: Size, tokenizer: Any) -> float:
    """|packed - plain| / |plain| of the fp32 gradients of sum(advantage * log-probability)."""
    trees, single = update.training_groups(tree, rollouts(size.small, tokenizer), tokenizer)
    tree.zero_grad()
    sdpa.zero_grad()
    for group in trees:
        (logprobs(tree, pack(group.segments)) * Columns(*group.columns).advantages).sum().backward()
    for group in single:
        (plain.logprobs(sdpa, group.segments) * Columns(*group.columns).advantages).sum().backward()
    both = zip(tree.parameters(), sdpa.parameters(), strict=True)
    pairs = [(a.grad.double(), b.grad.double()) for a, b in both]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return (difference / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


def cost(folder: Path, size: Size) -> list[page.Row]:
    """Seconds of scoring with information gain by number of turns, group size and context length."""
    tokenizer = load_tokenizer(folder)
    model = load(folder, compute_dtype(), "tree").eval()
    shapes = {("turns", turns): replace(size.pair, turns=(turns,)) for turns in size.turns}
    shapes |= {
        ("group size, 2 turns", count): replace(size.pair, turns=(2,) * count) for count in size.groups
    }
    shapes |= {
        ("observation tokens, 2 turns", tokens): replace(size.pair, turns=(2,), observation=tokens)
        for tokens in size.observations
    }
    trees = {
        key: update.scoring_trees(rollouts(shape, tokenizer), tokenizer, information_gain=True)
        for key, shape in shapes.items()
    }
    sides = {str(key): partial(update.scored, model, listed) for key, listed in trees.items()}
    seconds = alternate(sides, size.repeats)
    return [
        page.Row("", None, seconds[str(key)], point=(*key, tokens(listed))) for key, listed in trees.items()
    ]


def memory(folder: Path, size: Size) -> list[page.Row]:
    """Peak memory at 4,096 tokens per trajectory, each in a process of its own."""
    rows = []
    for work in ("scoring", "training"):
        for group in size.memory_groups:
            words = ["--model", str(folder), "--work", work, "--group", str(group)]
            found = measured("benchmarks.memory", *words)
            how = " with checkpointing" if work == "training" else ""
            what = f"peak memory of {work}{how}, 4,096 tokens per trajectory, group of {group}, GB"
            rows.append(page.Row(what, "≤ 4", [found["peak"]]))
    return rows


def rollouts_and_iteration(_folder: Path, size: Size) -> list[page.Row]:
    """Rollouts beside vLLM's own generation, and a whole iteration beside a plain loop."""
    return iteration.rows(size.samples, size.long_turns, size.repeats)


def run(_folder: Path, _size: Size) -> list[page.Row]:
    """Where the time of the run in results/ went, from its logs."""
    return finished_run.rows(Path("logs"))


PARTS = {
    "scoring": scoring,
    "training": training,
    "rollouts": rollouts_and_iteration,
    "cost": cost,
    "memory": memory,
    "run": run,
}


def main() -> None:
    """Measure the parts and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--out", type=Path, default=Path("docs/results/performance.md"), metavar="FILE")
    args = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stage.log.setLevel(logging.INFO)
    folder = WORK / "model"
    if not (folder / "policy.json").exists():
        model_stage.main(["--config", '{"source": "smollm2"}', "--out", str(folder)])
    for name in args.part:
        load_seen = Load()
        rows = PARTS[name](folder, SIZES[args.size])
        found = {
            "rows": [asdict(row) for row in rows],
            "repeats": SIZES[args.size].repeats,
            "machine": machine(compute_dtype()),
            "load": load_seen.since(),
        }
        tables.write_json(found, WORK / args.size / f"{name}.json")
        print(f"{page.shown(rows)}\n{found['load']}", flush=True)
    page.write(WORK / args.size, list(PARTS), args.out)


if __name__ == "__main__":
    main()
