"""Figures as SVG text: equal numbers give equal bytes. No files, no display."""

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)  # told apart by colour-blind readers
PANELS = {
    "f1": "F1 of the sampled trajectories",
    "reward": "outcome reward",
    "info_gain": "information gain per turn",
    "format_failure": "malformed trajectories",
    "searches": "searches per trajectory",
    "kl": "KL to the warm start, per token",
    "flat_advantage": "groups without any advantage",
    "gold_logprob_end": "log-probability of the answer at the end",
    "entropy": "entropy per sampled token",
    "duplicate_queries": "queries asked before",
    "gold_recall": "supporting passages shown",
    "invalid_turns": "invalid turns",
}


def svg(figure: Figure) -> str:
    """The figure as an <svg> element without time stamps or random ids."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "igpo", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """One panel per metric over iterations: thin lines are seeds, a thick line is their mean."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure = Figure(figsize=(10, 10.4), layout="constrained")
    axes = figure.subplots(len(PANELS) // 3, 3, sharex=True)
    for axis, (name, label) in zip(axes.flat, PANELS.items(), strict=True):
        for arm, colour in zip(arms, COLOURS * len(arms), strict=False):
            _lines(axis, [row for row in rows if row["arm"] == arm], name, arm, colour)
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[-1]:
        axis.set_xlabel("iteration")
    axes.flat[0].legend(frameon=False)
    return svg(figure)


def _lines(axis: Any, rows: Sequence[Mapping[str, Any]], name: str, arm: str, colour: str) -> None:
    seeds = sorted({row["seed"] for row in rows})
    found = [row for row in rows if row.get(name) is not None]
    for seed in seeds if len(seeds) > 1 else []:
        one = [row for row in found if row["seed"] == seed]
        axis.plot([r["iteration"] for r in one], [r[name] for r in one], color=colour, lw=0.7, alpha=0.6)
    steps = sorted({row["iteration"] for row in found})
    means = [statistics.fmean(row[name] for row in found if row["iteration"] == step) for step in steps]
    axis.plot(steps, means, color=colour, lw=2, marker="o", ms=4, label=arm)


def intervals(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """F1 of every row of one benchmark with its 95 % interval; `names` label the rows."""
    figure = Figure(figsize=(10, 0.6 + 0.4 * len(rows)), layout="constrained")
    axis = figure.subplots()
    places = list(range(len(rows)))[::-1]
    for place, row, colour in zip(places, rows, COLOURS * len(rows), strict=False):
        low, high = 100 * row["f1_low"], 100 * row["f1_high"]
        axis.plot([low, high], [place, place], color=colour, lw=3, solid_capstyle="round")
        axis.plot(100 * row["f1"], place, "o", color=colour, ms=9)
    axis.set_yticks(places, names)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlim(0, 100)
    axis.set_xlabel("F1 in per cent")
    axis.grid(axis="x", alpha=0.3)
    return svg(figure)
