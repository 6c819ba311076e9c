"""Scoring in packed trees beside one forward pass per turn, and what it costs by size."""

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.method import plain, update
from benchmarks.method.sizes import Size
from benchmarks.method.workload import forced, rollouts
from benchmarks.pages import page
from benchmarks.pages.measure import alternate, median_quotient, ratios
from igpo.experiment.policy import load, load_tokenizer
from igpo.tree.groups import tree
from igpo.tree.segments import flatten
from pipeline.devices import compute_dtype


def scoring(folder: Path, size: Size) -> list[page.Row]:
    """Old log-probabilities alone, with information gain, and one forward pass per turn."""
    tokenizer = load_tokenizer(folder)
    tree, sdpa = load(folder, torch.float32, "tree").eval(), load(folder, compute_dtype(), "sdpa").eval()
    rows = rollouts(size.pair, tokenizer)
    both = update.scoring_trees(rows, tokenizer, information_gain=True)
    alone = update.scoring_trees(rows, tokenizer, information_gain=False)
    count = len(size.pair.turns)
    first = rollouts(replace(size.pair, turns=size.pair.turns[:1]), tokenizer)
    naive = {"one pass per turn": lambda: plain.gold_by_turn(sdpa, first, forced(tokenizer))}
    ours = {
        "old": lambda: update.scored(tree, alone),
        "old and gain": lambda: update.scored(tree, both),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(size.repeats):
        for name, values in (alternate(naive, 1) | alternate(ours, size.pairs)).items():
            seconds[name] += values
    gain_seconds = [a - b for a, b in zip(seconds["old and gain"], seconds["old"], strict=True)]
    return [
        page.Row(
            "old log-probabilities + information gain / old alone",
            "≤ 1.10",
            ratios(seconds["old and gain"], seconds["old"]),
        ),
        page.Row(
            f"time that information gain adds, from {len(gain_seconds)} pairs: one forward per turn / ours",
            "≥ 30",
            median_quotient([count * value for value in seconds["one pass per turn"]], gain_seconds),
        ),
        page.Row("old log-probabilities alone, tokens/s", None, [tokens(alone) / s for s in seconds["old"]]),
        *exactness(folder, first, tokenizer),
    ]


def tokens(trees: list[Any]) -> int:
    """Tokens that trees hold together."""
    return sum(len(segment.ids) for segment in flatten(trees))


def exactness(folder: Path, rows: Any, tokenizer: Any) -> list[page.Row]:
    """Largest difference of a turn's mean gold log-probability to the naive passes."""
    scored_groups = update.forced_groups(rows, tokenizer)
    turns = len(scored_groups[0][0].branches)

    def ours(dtype: torch.dtype) -> list[float]:
        model = load(folder, torch.float32, "tree").eval()
        values = update.scored(model, [tree(group) for group in scored_groups], dtype)
        return [sum(part) / len(part) for part in values[-turns:]]

    def naive(dtype: torch.dtype) -> list[float]:
        return plain.gold_by_turn(load(folder, dtype, "sdpa").eval(), rows, forced(tokenizer))[0]

    def apart(left: list[float], right: list[float]) -> list[float]:
        return [max(abs(a - b) for a, b in zip(left, right, strict=True))]

    exact = naive(torch.float32)
    result = [
        page.Row(
            "turn's mean gold log-probability, largest difference to the naive reference, fp32",
            "≤ 1e-5",
            apart(ours(torch.float32), exact),
        )
    ]
    if compute_dtype() is torch.bfloat16:
        own = apart(naive(torch.bfloat16), exact)
        result.append(
            page.Row(
                "the same in bf16, to the naive reference in fp32",
                f"≤ {own[0]:.3g}",
                apart(ours(torch.bfloat16), exact),
            )
        )
    return result


def cost(folder: Path, size: Size) -> list[page.Row]:
    """Seconds of scoring with information gain by number of turns, group size and context length."""
    tokenizer = load_tokenizer(folder)
    model = load(folder, torch.float32, "tree").eval()
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
    sides = {str(key): partial(update.scored, model, tree_list) for key, tree_list in trees.items()}
    seconds = alternate(sides, size.repeats)
    return [
        page.Row("", None, seconds[str(key)], point=(*key, tokens(tree_list)))
        for key, tree_list in trees.items()
    ]
