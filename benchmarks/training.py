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

    def at_peak(shape: Shape, which: str, trees: Any) -> page.Row:
        operations = sum(update.training_flops(tree, pack(group.segments)) for group in trees)
        possible = [
            rate * time / operations for rate, time in zip(peak, seconds[f"padded{which}"], strict=True)
        ]
        return page.Row(f"the same if ours ran at the matmul peak, {turns(shape)}", None, possible)

    total = sum(len(s.ids) for group in equal[1] for s in group.segments)  # a prompt for each trajectory
    peak = [matmul_flops() / value for value in seconds["matmul"]]
    flops = sum(update.training_flops(tree, pack(group.segments)) for group in equal[0])
    precision = str(compute_dtype()).removeprefix("torch.")
    return [
        compared(size.pair, ""),
        at_peak(size.pair, "", equal[0]),
        compared(size.ragged, ", ragged"),
        at_peak(size.ragged, ", ragged", ragged[0]),
        page.Row(
            f"training tokens/s, {turns(size.pair)}: ours", None, [total / value for value in seconds["ours"]]
        ),
        page.Row(
            f"training FLOP rate / {precision} matmul peak",
            "≥ 0.5",
            ratios([flops / s for s in seconds["ours"]], peak),
        ),
        page.Row(f"{precision} matmul peak, GFLOP/s", None, [value / 1e9 for value in peak]),
        *gradients(folder, tree, sdpa, size, tokenizer),
    ]


def turns(shape: Shape) -> str:
    """A group's trajectories in words."""
    return f"trajectories of {', '.join(map(str, shape.turns))} turns"


def gradients(folder: Path, tree: Any, sdpa: Any, size: Size, tokenizer: Any) -> list[page.Row]:
    """|one - other| / |other| of the whole model's gradients of sum(advantage * log-probability).

    Gradients in fp32, packed and one by one, and one by one in float64.
    """
    trees, single = update.training_groups(tree, rollouts(size.small, tokenizer), tokenizer)
    packed = gradient(tree, trees, lambda segments: logprobs(tree, pack(segments, tree.device)))
    plainly = gradient(sdpa, single, lambda segments: plain.logprobs(sdpa, segments))
    double = load(folder, torch.float64, "sdpa").train()
    exact = gradient(double, single, lambda segments: plain.logprobs(double, segments))
    what = "gradient of the whole model, relative difference"
    return [
        page.Row(f"fp32 {what}: packed / one by one", "≤ 1e-6", [distance(packed, plainly)]),
        page.Row(f"fp32 {what}: one by one / the same in float64", None, [distance(plainly, exact)]),
        page.Row(f"fp32 {what}: packed / one by one in float64", None, [distance(packed, exact)]),
    ]


def gradient(model: Any, groups: Any, logprobs_of: Callable[[Any], torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of a model's weights, in float64."""
    model.zero_grad()
    for group in groups:
        advantages = Columns(*group.columns.to(model.device)).advantages
        (logprobs_of(group.segments) * advantages).sum().backward()
    return [weight.grad.double() for weight in model.parameters()]


def distance(found: list[torch.Tensor], known: list[torch.Tensor]) -> float:
    """|found - known| / |known| over all weights."""
    difference = sum(float((a - b).square().sum()) for a, b in zip(found, known, strict=True))
    return (difference / sum(float(b.square().sum()) for b in known)) ** 0.5
