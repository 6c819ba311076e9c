"""One of the paper's comparisons, filled with our arms: `metrics.json of evaluations -> NAME.{csv,md,tex}`.

`tables.NAME` of the parameters says which arms are compared, which published row each stands for, and the
arm that differences are to. Ours and published are told apart by `source`; every row of ours says what it
was made from.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

from igpo import published
from igpo.tables import columns, read_evaluation, summary, table_rows, write_forms
from igpo.tables_text import (
    NOTES,
    Part,
    Rows,
    by_benchmark,
    difference,
    interval,
    label,
    method_name,
    metric_name,
    provenance_cells,
    published_cells,
    with_metric,
    with_spread,
)
from retrieval import stage

TABLES = ("algorithms", "ablation", "basis")


def our_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): arms by benchmarks, a metric with its interval; last the difference on the last one."""
    blocks = by_benchmark(rows)
    cells = []
    for arm in dict.fromkeys(row["method"] for row in rows):
        found = [next(row for row in block if row["method"] == arm) for block in blocks.values()]
        mean, bounds, p = difference(found[-1])
        shown = [f"{with_spread(row)} {interval(row)}" for row in found]
        cells.append([label(found[0]), *shown, f"{mean} {bounds}", p])
    return ["method", *blocks, f"Δ {metric_name(rows[0]['metric'])}", "p"], cells


def published_note(table: str, what: str = "F1 in per cent") -> str:
    """What a reader must know about the published rows, whose numbers are `what`."""
    models = " and ".join(sorted({row["model"] for row in published.read(table) if "model" in row}))
    note = NOTES["published"].replace("Table 1", published.PRINTED[table]).replace("F1 in per cent", what)
    return note.replace("IGPO: Qwen2.5-7B-Instruct", models) if models else note


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--table", required=True, choices=TABLES)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write the comparison in three forms."""
    chosen = getattr(params, args.table)
    settings = SimpleNamespace(**vars(params) | {"baseline": chosen["baseline"]})
    ours = table_rows([read_evaluation(path) for path in args.metrics], settings)
    for row in ours:
        row["published_row"] = chosen["rows"].get(row["method"])
    theirs = published.f1_rows(args.table)
    note = (
        f"{with_metric('comparison', params.metric)} Baseline: {method_name({'method': chosen['baseline']})}."
    )
    parts = [
        Part(f"Ours: {args.table}", *our_cells(ours), note),
        Part("Where ours come from", *provenance_cells(ours), NOTES["provenance"]),
        Part("Published by the paper", *published_cells(theirs), published_note(args.table)),
    ]
    write_forms([*ours, *theirs], (*columns(params.metric), "published_row"), parts, args.out / args.table)
    return summary(ours, params.metric)


main = stage.command("tables", arguments, run, __doc__)

if __name__ == "__main__":
    main()
