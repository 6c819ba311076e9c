"""Scoring and training of the pipeline and of the plain sides, as functions that a benchmark can time."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from benchmarks.method.workload import credited, forced
from igpo.experiment.schema import Rows
from igpo.training import selection
from igpo.training.selection import TrainingGroup
from igpo.tree.forward import autocast
from igpo.tree.forward import logprobs as tree_logprobs
from igpo.tree.groups import Scored, cut, force_answers, groups, tree
from igpo.tree.segments import Pack, Segment, packs
from pipeline import sections
from pipeline.settings import read_params

# In a pack two trajectories of ten turns fit.
PARAMS = sections.Train(**read_params([Path("params.yaml")])["train"] | {"batch_tokens": 8192})


def forced_groups(rows: Rows, tokenizer: Any) -> list[list[Scored]]:
    """The question's trajectories with the gold answer forced after every turn."""
    scored_groups = groups(rows)
    for group in scored_groups:
        force_answers(group, [forced(tokenizer)], {})
    return scored_groups


def scoring_trees(rows: Rows, tokenizer: Any, information_gain: bool) -> list[list[Segment]]:
    """Trees as stage `score` makes them, with the forced gold answers or without."""
    parts = cut(forced_groups(rows, tokenizer), PARAMS.batch_tokens)
    return [tree(group, branches=information_gain) for group in parts]


@torch.inference_mode()
def scored(model: Any, trees: list[list[Segment]], dtype: torch.dtype | None = None) -> list[list[float]]:
    """Log-probabilities of every segment with target tokens, in the order of the packs; weights are fp32."""
    result = []
    for packed, _ in packs(trees, PARAMS.batch_tokens, model.device, "scored"):
        with autocast(model.device.type, dtype):
            parts = packed.split(tree_logprobs(model, packed))
        result += [part.tolist() for part in parts if len(part)]
    return result


def training_groups(
    model: Any, rows: Rows, tokenizer: Any
) -> tuple[list[TrainingGroup], list[TrainingGroup]]:
    """The batch as stage `train` packs it, and a trajectory at a time for the plain side."""
    old = scored(model, scoring_trees(rows, tokenizer, information_gain=False))
    tables = (rows, *credited(rows, old))
    single = dataclasses.replace(PARAMS, batch_tokens=1)
    return selection.training_groups(*tables, PARAMS), selection.training_groups(*tables, single)


def training_flops(model: Any, packed: Pack) -> float:
    """Operations of a pack's forward and backward pass with nothing computed twice; backward = 2 forward."""
    config = model.config
    weights = [w.numel() for w in model.get_decoder().layers.parameters() if w.dim() == 2]
    linear = 2 * sum(weights) * len(packed.ids)
    head = 2 * config.vocab_size * config.hidden_size * len(packed.rows)
    pairs = int((packed.positions + 1).sum())  # a token attends to its whole path
    attention = 4 * config.hidden_size * config.num_hidden_layers * pairs
    return 3.0 * (linear + head + attention)
