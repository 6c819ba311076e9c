"""One of the paper's comparisons, filled with our arms: `metrics.json of evaluations -> NAME.{csv,md,tex}`.

`tables.NAME` of the parameters says which arms are compared, which published row each stands for, and the
arm that differences are to. Ours and published are told apart by `source`; every row of ours says what it
was made from.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from igpo import published
from igpo.tables import COLUMNS, read_evaluation, table_rows, write_forms
from igpo.tables_text import (
    NOTES,
    Part,
    by_benchmark,
    method_name,
    percent,
    published_cells,
)
from retrieval import stage

TABLES = ("algorithms", "ablation", "basis")
HASH = 12  # characters of a SHA-256 that a reader sees
PROVENANCE_HEADS = ["method", "arm", "seeds", "n", "questions", "policies"]
Rows = Sequence[Mapping[str, Any]]


def label(row: Mapping[str, Any]) -> str:
    """The name of a row of ours, with the published one that it stands for."""
    stands_for = row["published_row"]
    return f"{method_name(row)} ({stands_for})" if stands_for else method_name(row)


def our_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): arms by benchmarks, F1 with its interval; at the end the difference on the last one."""
    blocks = by_benchmark(rows)
    cells = []
    for arm in dict.fromkeys(row["method"] for row in rows):
        found = [next(row for row in block if row["method"] == arm) for block in blocks.values()]
        low, high = (f"{100 * found[-1][f'f1_difference_{bound}']:+.1f}" for bound in ("low", "high"))
        cells.append(
            [
                label(found[0]),
                *(f"{percent(r['f1'])} [{percent(r['f1_low'])}, {percent(r['f1_high'])}]" for r in found),
                f"{100 * found[-1]['f1_difference']:+.1f} [{low}, {high}]",
                f"{found[-1]['f1_difference_p']:.3f}",
            ]
        )
    return ["method", *blocks, "Δ F1", "p"], cells


def provenance_cells(rows: Rows) -> list[list[str]]:
    """What each arm's row was made from, `PROVENANCE_HEADS` for columns; hashes are shortened."""
    cells = []
    for arm in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == arm]
        policies = " ".join(policy[:HASH] for policy in mine[0]["policy_sha256"].split())
        numbers = " ".join(f"{row['benchmark']}:{row['n']}" for row in mine)
        seeds, questions = mine[0]["seed_names"] or "–", mine[0]["questions_sha256"][:HASH]
        cells.append([label(mine[0]), arm, seeds, numbers, questions, policies])
    return cells


def published_note(table: str, what: str = "F1 in per cent") -> str:
    """What a reader must know about the published rows, whose numbers are `what`."""
    return NOTES["published"].replace("Table 1", published.PRINTED[table]).replace("F1 in per cent", what)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--table", required=True, choices=TABLES)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write the comparison in three forms."""
    chosen = getattr(params, args.table)
    settings = SimpleNamespace(baseline=chosen["baseline"], bootstrap=params.bootstrap, seed=params.seed)
    ours = table_rows([read_evaluation(path) for path in args.metrics], settings)
    for row in ours:
        row["published_row"] = chosen["rows"].get(row["method"])
    theirs = published.f1_rows(args.table)
    note = f"{NOTES['comparison']} Baseline: {method_name({'method': chosen['baseline']})}."
    parts = [
        Part(f"Ours: {args.table}", *our_cells(ours), note),
        Part("Where ours come from", PROVENANCE_HEADS, provenance_cells(ours)),
        Part("Published by the paper", *published_cells(theirs), published_note(args.table)),
    ]
    write_forms([*ours, *theirs], (*COLUMNS, "published_row"), parts, args.out / args.table)
    best = max(ours, key=lambda row: row["f1"])
    return f"{len(ours)} rows; best: {best['method']}, F1 {best['f1']:.3f} on {best['benchmark']}"


main = stage.command("tables", arguments, run, __doc__)

if __name__ == "__main__":
    main()
