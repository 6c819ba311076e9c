"""Training on packed trees beside padded batches with full logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.method import plain, update
from benchmarks.method.sizes import Size
from benchmarks.method.workload import Shape, rollouts
from benchmarks.pages import page
from benchmarks.pages.measure import alternate, matmul, matmul_flops, ratios
from igpo import train
from igpo.experiment.policy import load, load_tokenizer
from igpo.training.loss import Columns
from igpo.tree.forward import logprobs
from igpo.tree.segments import pack
from pipeline.devices import compute_dtype


def training(folder: Path, size: Size) -> list[page.Row]:
    """Gradients of a batch: packed, and padded with full logits."""
    tokenizer = load_tokenizer(folder)
    tree, sdpa = (load(folder, torch.float32, kind).train() for kind in ("tree", "sdpa"))
    equal, ragged = (
        update.training_groups(tree, rollouts(shape, tokenizer), tokenizer)
        for shape in (size.pair, size.ragged)
    )
    seconds = timed(tree, sdpa, {"": equal, ", ragged": ragged}, size.repeats)
    peak = [matmul_flops() / value for value in seconds["matmul"]]

    def compared(shape: Shape, which: str) -> page.Row:
        what = f"training tokens/s, {turns(shape)}: ours / padded with full logits, two at a time"
        return page.Row(what, "≥ 2.5", ratios(seconds[f"padded{which}"], seconds[f"ours{which}"]))

    def at_peak(shape: Shape, which: str, operations: float) -> page.Row:
        possible = ratios(seconds[f"padded{which}"], [operations / rate for rate in peak])
        return page.Row(f"the same if ours ran at the matmul peak, {turns(shape)}", None, possible)

    def flops(trees: Any) -> float:
        return sum(update.training_flops(tree, pack(group.segments)) for group in trees)

    total = sum(len(s.ids) for group in equal[1] for s in group.segments)  # a prompt for each trajectory
    operations = flops(equal[0])
    speed = [total / value for value in seconds["ours"]]
    precision = str(compute_dtype()).removeprefix("torch.")
    share = ratios([operations / value for value in seconds["ours"]], peak)
    return [
        compared(size.pair, ""),
        at_peak(size.pair, "", operations),
        compared(size.ragged, ", ragged"),
        at_peak(size.ragged, ", ragged", flops(ragged[0])),
        page.Row(f"training tokens/s, {turns(size.pair)}: ours", None, speed),
        page.Row(f"training FLOP rate / {precision} matmul peak", "≥ 0.5", share),
        page.Row(f"{precision} matmul peak, GFLOP/s", None, [value / 1e9 for value in peak]),
        *gradients(folder, tree, sdpa, size, tokenizer),
    ]


def timed(tree: Any, sdpa: Any, batches: dict[str, Any], repeats: int) -> dict[str, list[float]]:
    """Seconds of a matrix product, and of either gradient of every batch: trees, and one by one."""

    def ours(trees: Any) -> Callable[[], object]:
        return lambda: (tree.zero_grad(), train.accumulate(tree, trees, update.PARAMS))

    def padded(trees: Any) -> Callable[[], object]:
        return lambda: (sdpa.zero_grad(), plain.padded_gradient(sdpa, trees, 2, update.PARAMS))

    measured = {"matmul": matmul(compute_dtype(), tree.device)}
    for which, (trees, single) in batches.items():
        measured |= {f"ours{which}": ours(trees), f"padded{which}": padded(single)}
    return alternate(measured, repeats)


def turns(shape: Shape) -> str:
    """A group's trajectories in words."""
    return f"trajectories of {', '.join(map(str, shape.turns))} turns"


def gradients(folder: Path, tree: Any, sdpa: Any, size: Size, tokenizer: Any) -> list[page.Row]:
    """|one - other| / |other| of the whole model's gradients of sum(advantage * log-probability).

    Gradients in fp32, packed and one by one, and one by one in float64.
    """
    trees, single = update.training_groups(tree, rollouts(size.small, tokenizer), tokenizer)
    tree_gradient = gradient(
        tree, trees, lambda model, segments: logprobs(model, pack(segments, model.device))
    )
    plainly = gradient(sdpa, single, plain.logprobs)
    exact = gradient(load(folder, torch.float64, "sdpa").train(), single, plain.logprobs)
    what = "gradient of the whole model, relative difference"
    return [
        page.Row(f"fp32 {what}: packed / one by one", "≤ 1e-6", [distance(tree_gradient, plainly)]),
        page.Row(f"fp32 {what}: one by one / the same in float64", None, [distance(plainly, exact)]),
        page.Row(f"fp32 {what}: packed / one by one in float64", None, [distance(tree_gradient, exact)]),
    ]


def gradient(model: Any, groups: Any, logprobs_of: Callable[[Any, Any], torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of a model's weights, in float64."""
    model.zero_grad()
    for group in groups:
        advantages = Columns(*group.columns.to(model.device)).advantages
        (logprobs_of(model, group.segments) * advantages).sum().backward()
    return [weight.grad.double() for weight in model.parameters()]


def distance(estimate: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """|estimate - reference| / |reference| over all weights."""
    difference = sum(float((a - b).square().sum()) for a, b in zip(estimate, reference, strict=True))
    return (difference / sum(float(b.square().sum()) for b in reference)) ** 0.5
