"""How far igpo's advantage is the outcome's, with one search at most: `evaluations, iterations -> table`.

The arms of `tables.single_turn` are compared as in other comparisons. Then every iteration of theirs is asked
what igpo makes of it: a search turn's advantage A (Eq. 6) against z, the outcome normalised in its group,
which is all that a method without step rewards has for the turn.
"""

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.comparisons import recomputed
from igpo.comparisons.comparison import comparison_parts, our_rows
from igpo.comparisons.recomputed import Batch
from igpo.credit.methods import outcome_z, reward_z
from igpo.experiment import checks, layout
from igpo.reporting import published
from igpo.reporting.cells import percent
from igpo.reporting.results import columns
from igpo.reporting.text import Part, write_forms
from pipeline import sections, stage
from pipeline.errors import UserError
from pipeline.settings import apply_arm

SIGNALS = ("both", "gain_only", "outcome_only", "neither")  # what differs within a group
AGREEMENT = ("correlation", "mean_difference", "opposite", "outcome_zero")
AGREEMENT_COLUMNS = ("policy", "groups", "search_turns", *AGREEMENT, *SIGNALS)
NOTE = (
    "Over the search turns of an iteration, A is igpo's advantage and z the outcome alone, normalised in its"
    " group, both with {arm}'s settings. r: their correlation; opposite: per cent of the turns in which their"
    " signs are opposite; z = 0: per cent in which the outcome says nothing and A does. Then per cent of"
    " groups by what differs in them: information gain and outcome, one of them, neither. A dash: no search,"
    " or no spread to correlate."
)


def correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Pearson's; None if either has no spread."""
    if len(one) < 2 or min(statistics.pvariance(one), statistics.pvariance(other)) == 0:
        return None
    return statistics.correlation(one, other)


def share(hits: Sequence[bool]) -> float | None:
    """The share that is true; None of nothing."""
    return sum(hits) / len(hits) if hits else None


def pairs(batch: Batch, params: sections.Advantage) -> list[tuple[float, float]]:
    """(igpo's advantage, normalised outcome) of every search turn of a batch."""
    values = recomputed.advantages(batch.trajectories, params)
    outcomes = outcome_z(batch.trajectories, params.std)
    return [(value, z) for row, z in zip(values, outcomes, strict=True) for value in row[:-1]]


def signals(batch: Batch, params: sections.Advantage) -> Counter[str]:
    """Numbers of groups by what differs within them: the keys of `SIGNALS`."""
    z = reward_z(batch.trajectories, "separate", params.scope, params.std)
    numbers: Counter[str] = Counter()
    for places in batch.groups().values():
        gain = any(value != 0 for place in places for value in z[place][:-1])
        outcome = any(z[place][-1] != 0 for place in places)
        numbers[SIGNALS[2 * (not gain) + (not outcome)]] += 1
    return numbers


def agreement(batches: Sequence[Batch], params: Mapping[str, Any]) -> dict[str, Any]:
    """How far igpo's advantage is the outcome's in some batches; None for what nothing tells."""
    turns, groups = [], Counter[str]()
    for batch in batches:
        own = recomputed.settings(params, batch)
        turns += pairs(batch, own)
        groups += signals(batch, own)
    return {
        "groups": groups.total(),
        "search_turns": len(turns),
        "correlation": correlation([value for value, _ in turns], [z for _, z in turns]),
        "mean_difference": math.fsum(abs(v - z) for v, z in turns) / len(turns) if turns else None,
        "opposite": share([value * z < 0 for value, z in turns]),
        "outcome_zero": share([z == 0 != value for value, z in turns]),
        **{name: groups[name] / groups.total() for name in SIGNALS},
    }


def agreement_rows(batches: Sequence[Batch], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per acting policy, over all seeds; last all of them together."""
    by_policy = recomputed.by_policy(batches)
    rows = [
        {"source": "ours", "policy": name, **agreement(own, params), **recomputed.provenance(own)}
        for name, own in by_policy.items()
    ]
    return [*rows, {"source": "ours", "policy": "all", **agreement(batches, params)}]


def agreement_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) for a reader."""
    heads = ["acting policy", "groups", "search turns", "r", "mean abs(A - z)", "opposite", "z = 0"]
    lines = []
    for row in rows:
        numbers = ("–" if row[name] is None else f"{row[name]:.2f}" for name in AGREEMENT[:2])
        shares = (percent(row[name]) for name in (*AGREEMENT[2:], *SIGNALS))
        lines.append([row["policy"], str(row["groups"]), str(row["search_turns"]), *numbers, *shares])
    return [*heads, "both", "gain only", "outcome only", "neither"], lines


def measured_arm(params: Mapping[str, Any]) -> str:
    """The first compared arm of method igpo. Raises UserError if none is."""
    for arm in layout.compared_arms(params, "single_turn"):
        if apply_arm(params, arm)["advantage"]["method"] == "igpo":
            return arm
    raise UserError("params: tables.single_turn: none of its arms has advantage.method igpo; name one")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--iterations", type=Path, nargs="*", default=[], metavar="DIR", help="runs/ARM/sS/K")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Write the table in three forms."""
    params = checks.read(args)
    arm, section = measured_arm(params), sections.Tables(**params["tables"])
    ours = our_rows("single_turn", args.metrics, section)
    batches = recomputed.read_batches(args.iterations)
    rows = agreement_rows(batches, apply_arm(params, arm)) if batches else []
    first, made_from, *_ = comparison_parts("single_turn", ours, section)
    note = f"{NOTE.format(arm=arm)} {published.WITHOUT_NUMBERS['single_turn']}"
    parts = [
        first,
        Part("How far igpo's advantage is the outcome's", *agreement_cells(rows), note),
        made_from,
        Part("Where the iterations come from", *recomputed.provenance_cells(batches), recomputed.FILES),
    ]
    heads = [*columns(section.metric), "published_row", *AGREEMENT_COLUMNS, *recomputed.PROVENANCE[2:]]
    write_forms([*ours, *rows], heads, parts, args.out / "single_turn")
    return f"{len(ours)} evaluations' rows, {len(batches)} batches"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
