"""One of the paper's comparisons, filled with our arms: `metrics.json of evaluations -> NAME.{csv,md,tex}`.

`tables.NAME` of the parameters says which arms are compared, which published row each stands for, and the
arm that differences are to. Ours and published are told apart by `source`; every row of ours says what it
was made from.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igpo.reporting import published
from igpo.reporting.cells import (
    NOTES,
    Rows,
    by_benchmark,
    difference,
    interval,
    label,
    method_name,
    metric_name,
    percent,
    provenance_cells,
    published_cells,
    searches,
    with_metric,
    with_spread,
)
from igpo.reporting.results import columns, read_evaluation, summary, table_rows
from igpo.reporting.text import Part, write_forms
from pipeline import sections, stage

TABLES = ("algorithms", "ablation", "basis", "gamma")
BEHAVIOUR = ("answer_rate", "format_failure")  # shares shown beside the metric


def our_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): arms by benchmarks, a metric with its interval; then of the last one the difference,
    answered and malformed trajectories, searches.
    """
    blocks = by_benchmark(rows)
    cells = []
    for arm in dict.fromkeys(row["method"] for row in rows):
        own = [next(row for row in block if row["method"] == arm) for block in blocks.values()]
        mean, bounds, p = difference(own[-1])
        numbers = [f"{with_spread(row)} {interval(row)}" for row in own]
        last = [percent(own[-1][name]) for name in BEHAVIOUR]
        cells.append([label(own[0]), *numbers, f"{mean} {bounds}", p, *last, searches(own[-1])])
    heads = [f"Δ {metric_name(rows[0]['metric'])}", "p", *map(metric_name, BEHAVIOUR), "searches"]
    return ["method", *blocks, *heads], cells


def published_note(table: str, what: str = "F1 in per cent") -> str:
    """What a reader must know about the published rows, whose numbers are `what`."""
    models = " and ".join(sorted({row["model"] for row in published.read(table) if "model" in row}))
    note = NOTES["published"].replace("Table 1", published.PLACES[table]).replace("F1 in per cent", what)
    return note.replace("IGPO: Qwen2.5-7B-Instruct", models) if models else note


def our_rows(table: str, metrics: Sequence[Path], params: sections.Tables) -> list[dict[str, Any]]:
    """Our rows of a comparison, each with the published row that its arm stands for."""
    section = getattr(params, table)
    settings = dataclasses.replace(params, baseline=section["baseline"])
    ours = table_rows([read_evaluation(path) for path in metrics], settings)
    return [row | {"published_row": section["rows"].get(row["method"])} for row in ours]


def comparison_parts(table: str, ours: Rows, params: sections.Tables) -> list[Part]:
    """Our rows for a reader, what they were made from, and the published ones if there are any."""
    baseline = method_name({"method": getattr(params, table)["baseline"]})
    note = f"{with_metric('comparison', params.metric)} Baseline: {baseline}."
    if table in published.WITHOUT_NUMBERS:
        note += f" {published.WITHOUT_NUMBERS[table]}"
    parts = [
        Part(f"Ours: {table}", *our_cells(ours), note),
        Part("Where ours come from", *provenance_cells(ours), NOTES["provenance"]),
    ]
    if table in published.PLACES:
        theirs = published_cells(published.f1_rows(table))
        parts.append(Part("Published by the paper", *theirs, published_note(table)))
    return parts


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--table", required=True, choices=TABLES)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: sections.Tables) -> str:
    """Write the comparison in three forms."""
    ours = our_rows(args.table, args.metrics, params)
    theirs = published.f1_rows(args.table) if args.table in published.PLACES else []
    parts = comparison_parts(args.table, ours, params)
    write_forms([*ours, *theirs], (*columns(params.metric), "published_row"), parts, args.out / args.table)
    return summary(ours, params.metric)


main = stage.command(sections.Tables, arguments, run, __doc__)

if __name__ == "__main__":
    main()
