"""Figures of runs, in the forms that pages and papers need."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from igpo.reporting import validation
from igpo.reporting.cells import hashes, metric_name

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
)  # told apart by colour-blind readers
X_LABELS = {
    "iteration": "iteration",
    "updates": "updates so far",
    "tokens_used": "tokens that updates used so far",
}
FIGURES = {  # name -> (title, what is on the x axis, panels: column -> title)
    "dev": (
        "Dev questions, greedy",
        "updates",
        {
            "dev_f1": "F1, with its 95 % interval over questions",
            "dev_f1_1hop": "F1 on questions of one hop",
            "dev_f1_2hop": "F1 on questions of two hops",
            "dev_searches": "searches per question",
            "dev_format_failure": "malformed trajectories",
            "dev_answer_rate": "answered",
        },
    ),
    "training": (
        "Training curves",
        "iteration",
        {
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
        },
    ),
    "evidence": (
        "Information gain by what a search showed",
        "iteration",
        {
            "info_gain_evidence": "a new supporting passage",
            "info_gain_answer": "one that holds the answer",
            "info_gain_no_evidence": "no new supporting passage",
        },
    ),
    "token_efficiency": (
        "Token efficiency",
        "tokens_used",
        {"f1": "F1 of the sampled trajectories", "em": "exact match", "reward": "outcome reward"},
    ),
    "collapse": (
        "Collapse: share of groups without spread",
        "iteration",
        {"flat_outcome": "of outcomes", "flat_info_gain": "of information gains", "flat_both": "of either"},
    ),
    "gold_entropy": (
        "The gold answer's log-probability per token",
        "iteration",
        {
            "gold_logprob_start": "before the first turn",
            "gold_logprob_end": "after the last search",
            "gold_entropy_reduction": "difference: reduction of its entropy",
        },
    ),
}


class Drawing(NamedTuple):
    """A figure, and the points that its description lists."""

    figure: Figure
    points: Sequence[str]

    def render(self, form: str) -> bytes:
        """The figure as `svg`, `pdf` or `png`, without time stamps or random ids."""
        out, about = io.BytesIO(), "; ".join(self.points)
        metadata = {
            "svg": {"Date": None, "Creator": None, "Description": about},
            "pdf": {"CreationDate": None, "Producer": None, "Creator": None, "Subject": about},
            "png": {"Software": None, "Description": about},
        }
        with matplotlib.rc_context({"svg.hashsalt": "igpo", "svg.fonttype": "none", "pdf.fonttype": 42}):
            self.figure.savefig(out, format=form, metadata=metadata[form], dpi=150)
        return out.getvalue()

    def svg(self) -> str:
        """The figure as an <svg> element."""
        text = self.render("svg").decode()
        return text[text.index("<svg") :]


def with_derived(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of iterations, run after run, with two more columns.

    `tokens_used`: `update_tokens` of the run's earlier iterations, which made the policy that acts in this
    one. `gold_entropy_reduction`: how much the log-probability of the gold answer rose from the prompt to the
    last search.
    """
    arms = list(rows["arm"].unique())
    rows = rows.assign(place=rows["arm"].map(arms.index)).sort_values(["place", "seed", "iteration"])
    tokens = rows.groupby(["arm", "seed"])["update_tokens"]
    return rows.assign(
        tokens_used=tokens.cumsum() - rows["update_tokens"],
        gold_entropy_reduction=rows["gold_logprob_end"] - rows["gold_logprob_start"],
    )


def drawings(rows: Sequence[Mapping[str, Any]]) -> dict[str, Drawing]:
    """The figures of rows of curves by name; `dev` only if a policy was validated."""
    names = [name for name in FIGURES if name != "dev" or any(row.get("dev_f1") is not None for row in rows)]
    return {name: draw(name, rows) for name in names}


def draw(name: str, rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """One of `FIGURES` of rows of curves: thin lines are seeds, a thick line is their mean.

    A band is the 95 % interval over questions, its bounds' mean over seeds.
    """
    _, x, panels = FIGURES[name]
    table = pd.DataFrame(rows if name == "dev" else validation.of_iterations(rows))
    table = table if name == "dev" else with_derived(table)
    arms, height = table.groupby("arm", sort=False), len(panels) // 3
    figure = Figure(figsize=(10, 2.6 * height), layout="constrained")
    axes = figure.subplots(height, 3, sharex=True, squeeze=False)
    for axis, (column, label) in zip(axes.flat, panels.items(), strict=True):
        for (arm, own), colour in zip(arms, itertools.cycle(COLOURS), strict=False):
            _lines(axis, own, (x, column), str(arm), colour)
        if table.reindex(columns=[column])[column].isna().all():
            axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center")
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[-1]:
        axis.set_xlabel(X_LABELS[x])
    axes.flat[0].legend(frameon=False)
    return Drawing(figure, [_point(row) for row in table.to_dict("records")])


def _point(row: Mapping[Any, Any]) -> str:
    policy = hashes(row["policy_sha256"] or "unknown")
    return f"{row['arm']} s{row['seed']} iteration {row['iteration']}: policy {policy}"


def _lines(axis: Any, rows: pd.DataFrame, columns: tuple[str, str], arm: str, colour: str) -> None:
    x, y = columns
    bounds = [f"{y}_low", f"{y}_high"]
    numbers = list(dict.fromkeys(("seed", "iteration", x, y, *bounds)))
    points = rows.reindex(columns=numbers).astype(float).dropna(subset=y)
    seeds = sorted(rows["seed"].unique())
    for seed in seeds if len(seeds) > 1 else []:
        own = points[points["seed"] == seed]
        axis.plot(own[x], own[y], color=colour, lw=0.7, alpha=0.6)
    means = points.groupby("iteration").mean().reset_index()
    axis.plot(means[x], means[y], color=colour, lw=2, marker="o", ms=4, label=arm)
    if len(points) and points[bounds].notna().all(axis=None):
        low, high = (means[bound] for bound in bounds)
        axis.fill_between(means[x], low, high, color=colour, alpha=0.15, lw=0)


def gains(trajectories: Sequence[tuple[Sequence[float], float]]) -> Drawing:
    """Information gain by the number of the turn, its sign, and its sum beside the outcome.

    A trajectory is (gain of every search turn, outcome).
    """
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    by_turn = pd.DataFrame([values for values, _ in trajectories]).rename(columns=lambda place: place + 1)
    for turn, colour in zip(by_turn, itertools.cycle(COLOURS), strict=False):
        values = by_turn[turn].dropna()
        left.hist(values, bins=30, histtype="step", color=colour, density=True, label=f"turn {turn}")
        share = 100 * (values > 0).mean()
        middle.bar(turn, share, color=colour)
        middle.annotate(f"n = {len(values)}", (turn, share), ha="center", va="bottom", fontsize=8)
    sums = [(sum(values), outcome) for values, outcome in trajectories if values]
    right.plot([x for x, _ in sums], [y for _, y in sums], "o", ms=3, alpha=0.3, color=COLOURS[0])
    for axis, label in ((left, "information gain"), (middle, "turn"), (right, "sum of information gains")):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    left.set_ylabel("density")
    middle.set_ylabel("above 0, per cent")
    middle.set_xticks(list(by_turn))
    middle.set_ylim(0, 110)
    right.set_ylabel("outcome")
    if len(by_turn.columns):
        left.legend(frameon=False)
    return Drawing(figure, [f"{len(trajectories)} trajectories"])


def intervals(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Drawing:
    """The metric of every row of one benchmark with its 95 % interval; `names` label the rows."""
    metric = rows[0]["metric"]
    figure = Figure(figsize=(10, 0.6 + 0.4 * len(rows)), layout="constrained")
    axis = figure.subplots()
    places = list(range(len(rows)))[::-1]
    for place, row, colour in zip(places, rows, itertools.cycle(COLOURS), strict=False):
        low, high = 100 * row[f"{metric}_low"], 100 * row[f"{metric}_high"]
        axis.plot([low, high], [place, place], color=colour, lw=3, solid_capstyle="round")
        axis.plot(100 * row[metric], place, "o", color=colour, ms=9)
    axis.set_yticks(places, names)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlim(min(0, *(100 * row[f"{metric}_low"] for row in rows)), 100)
    axis.set_xlabel(f"{metric_name(metric)} in per cent")
    axis.grid(axis="x", alpha=0.3)
    return Drawing(figure, [f"{row['method']}: policies {hashes(row['policy_sha256'])}" for row in rows])
