"""Training on packed trees beside padded batches with full logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import page, plain, update
from benchmarks.measure import alternate, matmul, matmul_flops, ratios
from benchmarks.sizes import Size
from benchmarks.workload import Shape, rollouts
from igpo import train
from igpo.loss import Columns
from igpo.model import load, load_tokenizer
from igpo.packing import pack
from igpo.tree_pass import logprobs
from retrieval.encoder import compute_dtype


def training(folder: Path, size: Size) -> list[page.Row]:
    """Gradients of a batch: packed, and padded with full logits."""
    tokenizer = load_tokenizer(folder)
    tree, sdpa = (load(folder, torch.float32, kind).train() for kind in ("tree", "sdpa"))
    equal, ragged = (
        update.training_groups(tree, rollouts(shape, tokenizer), tokenizer)
        for shape in (size.pair, size.ragged)
    )

    def ours(trees: Any) -> Callable[[], object]:
        return lambda: (tree.zero_grad(), train.accumulate(tree, trees, update.PARAMS))

    def padded(trees: Any) -> Callable[[], object]:
        return lambda: (sdpa.zero_grad(), plain.padded_gradient(sdpa, trees, 2, update.PARAMS))

    seconds = alternate(
        {
            "matmul": matmul(compute_dtype(), tree.device),
            "ours": ours(equal[0]),
            "padded": padded(equal[1]),
            "ours, ragged": ours(ragged[0]),
            "padded, ragged": padded(ragged[1]),
        },
        size.repeats,
    )

    def compared(shape: Shape, which: str) -> page.Row:
        what = f"training tokens/s, {turns(shape)}: ours / padded with full logits, two at a time"
        return page.Row(what, "≥ 2.5", ratios(seconds[f"padded{which}"], seconds[f"ours{which}"]))

    total = sum(len(s.ids) for group in equal[1] for s in group.segments)  # a prompt for each trajectory
    peak = [matmul_flops() / value for value in seconds["matmul"]]
    flops = sum(update.training_flops(tree, pack(group.segments)) for group in equal[0])
    precision = str(compute_dtype()).removeprefix("torch.")
    return [
        compared(size.pair, ""),
        compared(size.ragged, ", ragged"),
        page.Row(
            f"training tokens/s, {turns(size.pair)}: ours", None, [total / value for value in seconds["ours"]]
        ),
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


def turns(shape: Shape) -> str:
    """A group's trajectories in words."""
    return f"trajectories of {', '.join(map(str, shape.turns))} turns"


def gradient_difference(tree: Any, sdpa: Any, size: Size, tokenizer: Any) -> float:
    """|packed - plain| / |plain| of the fp32 gradients of sum(advantage * log-probability)."""
    trees, single = update.training_groups(tree, rollouts(size.small, tokenizer), tokenizer)
    tree.zero_grad()
    sdpa.zero_grad()
    for group in trees:
        advantages = Columns(*group.columns.to(tree.device)).advantages
        (logprobs(tree, pack(group.segments, tree.device)) * advantages).sum().backward()
    for group in single:
        advantages = Columns(*group.columns.to(sdpa.device)).advantages
        (plain.logprobs(sdpa, group.segments) * advantages).sum().backward()
    both = zip(tree.parameters(), sdpa.parameters(), strict=True)
    pairs = [(a.grad.double(), b.grad.double()) for a, b in both]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return (difference / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5
