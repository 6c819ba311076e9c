"""Measured rows -> one Markdown page and its plot."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages.measure import spread
from pipeline import storage

HEAD = """\
# What the method costs

SmolLM2-135M, article text; prompt of 300 tokens, turns of 60 policy and 250 observation tokens. Median of \
{repeats} alternating repeats (minimum–maximum); ratios are taken within a repeat. All sides run with the \
settings of glibc's allocator that the pipeline's stages have (`igpo/training/memory.py`). Memory is the \
peak of a whole process, in training that of a second update, beside AdamW's state. Written by \
`python -m benchmarks.performance`.

A pack holds two trajectories of ten turns, so a group of eight is four such packs and costs four times as \
much; one pass per turn is timed on one of the two and counted twice. Scoring without and with information \
gain runs in pairs, the order changing from pair to pair. The time that information gain adds is the median \
of the pairs' differences; the median of one pass per turn is divided by it, and in brackets stands the 95 % \
bootstrap interval of this quotient (inf: no added time in the median). Its share of an iteration is made \
alike. Training's plain side takes a group's trajectories two at a time, in the order of samples, padded to \
the longer one; tokens/s are those of whole trajectories on both sides, padding not counted.

Rows that begin with "the same" say what the row above them could reach: training if all its operations ran \
as fast as a large product, rollouts turn by turn with the same seeds if only the engine took time. The \
plain fp32 gradient's distance to that in float64 is its own rounding.

Rollouts have the default experiment's warm start, training questions and BM25 index, opened in the same \
process; vLLM's own generation samples as many tokens after each prompt, without seeds or log-probabilities. \
The iteration is that of one question whose trajectories search in every turn: rollouts, scoring and one \
optimiser step, everything loaded. The plain loop asks transformers' `generate` with the whole context each \
turn, makes one forward pass per turn for the gold answer and one for old log-probabilities, and trains on \
padded pairs with full logits; its scores and training are timed on two of the trajectories and counted for \
all. The run is the one in `results/`; the load below it is that of reading its costs. Time of \
generation and searches, of forward and backward passes and optimiser steps, of building indexes and \
measuring coverage is work; starting processes and the engine, loading models, tables and Snakemake are not.

Every rollout stage starts an engine of its own: stages are processes joined by files. An engine that lived \
on would keep its weights and cache (3 GB here) beside those of training, and vLLM packs weights for its \
kernels when it loads them, which new ones would have to repeat in place. The row "start of the engine" says \
what that costs.
"""


@dataclass
class Row:
    """What was measured, its goal as in "≤ 1.10", and a value per repeat.

    `point` places it on a curve: (what grows, its value, tokens).
    """

    what: str
    goal: str | None
    values: list[float]
    point: tuple[str, int, int] | None = None


def verdict(row: Row) -> str:
    """Whether the median meets the goal."""
    if row.goal is None:
        return ""
    sign, _, bound = row.goal.partition(" ")
    middle = statistics.median(row.values)
    return "met" if (middle <= float(bound) if sign == "≤" else middle >= float(bound)) else "**missed**"


def table(rows: list[Row]) -> str:
    """Rows with their goals."""
    lines = ["| what | goal | measured | |", "| --- | --- | --- | --- |"]
    lines += [f"| {row.what} | {row.goal or ''} | {spread(row.values)} | {verdict(row)} |" for row in rows]
    return "\n".join(lines)


def curve_table(rows: list[Row]) -> str:
    """Points of the curves with their cost per token."""
    lines = ["| by | at | tokens | seconds | ms/token |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        by, at, tokens = row.point or ("", 0, 0)
        per_token = [1000 * value / tokens for value in row.values]
        lines.append(f"| {by} | {at} | {tokens:,} | {spread(row.values)} | {spread(per_token)} |")
    return "\n".join(lines)


def shown(rows: list[Row]) -> str:
    """The rows of a part as a table."""
    return curve_table(rows) if rows[0].point else table(rows)


def plot(rows: list[Row], out: Path) -> None:
    """Seconds over tokens, one line for each way to grow."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for by in dict.fromkeys(row.point[0] for row in rows if row.point):
        points = [(row.point[2], row.values) for row in rows if row.point and row.point[0] == by]
        axes.plot([x for x, _ in points], [statistics.median(y) for _, y in points], marker="o", label=by)
    axes.set(xlabel="tokens scored", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.legend(title="growing")
    with matplotlib.rc_context({"svg.hashsalt": out.stem}):
        figure.savefig(out, metadata={"Date": None})


def write(folder: Path, parts: list[str], out: Path) -> None:
    """The page from the parts that `folder` holds, and the plot in its folder "pictures"."""
    contents: dict[str, dict[str, Any]] = {
        name: storage.read_json(folder / f"{name}.json")
        for name in parts
        if (folder / f"{name}.json").exists()
    }
    text = [HEAD.format(repeats=next(iter(contents.values()))["repeats"])]
    for name, part in contents.items():
        rows = [Row(**row) for row in part["rows"]]
        body = shown(rows)
        if name == "cost":
            image = out.with_name("pictures") / f"{out.stem}_cost.svg"
            image.parent.mkdir(parents=True, exist_ok=True)
            plot(rows, image)
            body += f"\n\n![seconds over tokens](pictures/{image.name})"
        text.append(f"## {name.capitalize()}\n\n{body}\n\n{part['machine']}; {part['load']}.\n")
    with storage.replacing(out) as temporary:
        Path(temporary).write_text("\n".join(text))
