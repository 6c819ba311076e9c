"""Result tables: `metrics.json of evaluations, iterations -> main.{csv,md,tex}, metrics.json, curves.csv`.

F1 and the rates are shares in the CSV files, per cent for the reader. Several seeds of an arm become one
row: the mean, the sample standard deviation over seeds (`f1_std`), and a 95 % interval from resampling both
questions and seeds, which understates the spread of few seeds by a factor of sqrt(1 - 1 / seeds). Differences
to the baseline are paired by question and seed. `tables.metric` names what intervals and differences are of.
Every row of ours says what it was made from; the published rows are the paper's, told apart by `source`, and
`printed_in` says where.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.reporting import published, validation
from igpo.reporting.curves import curve_rows
from igpo.reporting.results import METRICS, SETTINGS, columns, read_evaluation, summary, table_rows
from igpo.reporting.text import csv_text, latex, markdown, write_text
from igpo.reporting.validation import DEV
from pipeline import sections, stage, storage


def flat(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{arm: {benchmark: {metric: value}}}` of our rows, for `dvc metrics`."""
    result: dict[str, Any] = {}
    for row in rows:
        values = {key: round(row[key], 6) for key in METRICS if row[key] is not None}
        result.setdefault(row["method"], {})[row["benchmark"]] = values
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    validation.arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: sections.Tables) -> str:
    """Write the five files."""
    ours = table_rows([read_evaluation(path) for path in args.metrics], params)
    theirs = published.f1_rows("main")
    curves = curve_rows(args.iterations, args.validations)
    first = ["arm", "seed", "iteration", "n", *METRICS, "reward", "step_reward", "info_gain", "updates", *DEV]
    last = ["policy_sha256", "questions_sha256", *SETTINGS]
    further = sorted({key for row in curves for key in row} - {*first, *last})
    write_text(csv_text([*ours, *theirs], columns(params.metric)), args.out / "main.csv")
    write_text(markdown(ours, theirs), args.out / "main.md")
    write_text(latex(ours, theirs), args.out / "main.tex")
    write_text(csv_text(curves, [*first, *further, *last]), args.out / "curves.csv")
    storage.write_json(flat(ours), args.out / "metrics.json")
    return summary(ours, params.metric)


main = stage.command(sections.Tables, arguments, run, __doc__)

if __name__ == "__main__":
    main()
