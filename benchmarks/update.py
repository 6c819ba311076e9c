"""Scoring and training of the pipeline and of the plain sides, as functions that a benchmark can time."""

from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.workload import Shape, credited, forced, rollouts
from igpo import score, train
from igpo.packing import Pack, Segment, packs
from igpo.packing import logprobs as tree_logprobs

PARAMS = SimpleNamespace(
    clip_low=0.2, clip_high=0.2, kl=0.001, aggregation="seq-mean-token-mean", batch_tokens=8192
)
Trees = list[tuple[list[Segment], torch.Tensor]]


def scoring_trees(shape: Shape, tokenizer: Any, information_gain: bool) -> list[list[Segment]]:
    """Trees as stage `score` makes them, with the forced gold answers or without."""
    groups = score.groups(rollouts(shape, tokenizer), forced(tokenizer))
    cut = score.cut(groups, PARAMS.batch_tokens)
    return [score.tree(group, branches=information_gain) for group in cut]


@torch.inference_mode()
def scored(model: Any, trees: list[list[Segment]]) -> list[list[float]]:
    """Log-probabilities of every segment with wanted tokens, in the order of the packs."""
    found = []
    for packed, _ in packs(trees, PARAMS.batch_tokens, model.device, "scored"):
        parts = zip(packed.segments, packed.split(tree_logprobs(model, packed)), strict=True)
        found += [part.tolist() for segment, part in parts if segment.wanted]
    return found


def training_trees(model: Any, shape: Shape, tokenizer: Any) -> tuple[Trees, Trees]:
    """The batch as stage `train` packs it, and a trajectory at a time for the plain side."""
    rows = rollouts(shape, tokenizer)
    old = scored(model, scoring_trees(shape, tokenizer, information_gain=False))
    tables = (rows, *credited(rows, old))
    return (
        train.training_trees(*tables, PARAMS.aggregation, PARAMS.batch_tokens),
        train.training_trees(*tables, PARAMS.aggregation, 1),
    )


def training_flops(model: Any, packed: Pack) -> float:
    """Operations of a pack's forward and backward pass with nothing computed twice; backward = 2 forward."""
    config = model.config
    weights = [w.numel() for w in model.get_decoder().layers.parameters() if w.dim() == 2]
    linear = 2 * sum(weights) * len(packed.ids)
    head = 2 * config.vocab_size * config.hidden_size * len(packed.rows)
    pairs = sum(int(block.mask.sum()) for block in packed.blocks)
    attention = 4 * config.hidden_size * config.num_hidden_layers * pairs
    return 3.0 * (linear + head + attention)
