"""Questions on which an arm beats, equals or loses to another: `metrics.json … -> per_question.{csv,md,tex}`.

A question's F1, or what `tables.metric` names, is the mean over an arm's seeds. `tables.per_question` names
the arms and the baseline.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igpo.comparisons.comparison import published_note
from igpo.reporting import published
from igpo.reporting.cells import HASH, NOTES, hashes, method_name, percent, with_metric
from igpo.reporting.intervals import Values
from igpo.reporting.results import (
    SETTINGS,
    Evaluation,
    by_arm,
    check_comparable,
    provenance,
    question_values,
    read_evaluation,
)
from igpo.reporting.text import Part, write_forms
from pipeline import sections, stage
from pipeline.errors import UserError

SAME = 1e-9  # values this close are equal: means over seeds in floating point
SHARES = ("better", "equal", "worse")
COLUMNS = (
    "source",
    "method",
    "baseline",
    "benchmark",
    "n",
    *SHARES,
    "mean_difference",
    "seed_names",
    "questions_sha256",
    "policy_sha256",
    "iteration",
    "selected",
    "baseline_policy_sha256",
    *SETTINGS,
    "metric",
    "printed_in",
)


def shares(values: Values, baseline: Values) -> dict[str, float]:
    """Shares of questions with a better, equal, worse value than the baseline's, and the mean difference."""
    differences = np.subtract(values, baseline)
    signs = np.where(abs(differences) <= SAME, 0, np.sign(differences))
    numbers = {name: float((signs == sign).mean()) for name, sign in zip(SHARES, (1, 0, -1), strict=True)}
    return numbers | {"mean_difference": statistics.fmean(differences)}


def our_rows(
    evaluations: Sequence[Evaluation], arms: Sequence[str], baseline: str, metric: str
) -> list[dict[str, Any]]:
    """One row per arm other than the baseline and benchmark, `overall` last."""
    check_comparable(evaluations)
    seeds = by_arm(evaluations)
    if missing := sorted({*arms, baseline} - set(seeds)):
        raise UserError(f"tables.per_question: {missing[0]!r} was not evaluated; evaluated: {list(seeds)}")
    benchmarks = list(evaluations[0].metrics["benchmarks"])
    rows = []
    for arm in [arm for arm in arms if arm != baseline]:
        for benchmark in [*benchmarks, "overall"]:
            values, zero = (
                question_values(seeds[name], benchmark, metric).mean(0) for name in (arm, baseline)
            )
            row = {"source": "ours", "method": arm, "baseline": baseline, "benchmark": benchmark}
            row |= {"n": len(values), **shares(values, zero), **provenance(seeds[arm]), "metric": metric}
            rows.append(row | {"baseline_policy_sha256": provenance(seeds[baseline])["policy_sha256"]})
    return rows


def published_rows() -> list[dict[str, Any]]:
    """The paper's table: IGPO against GRPO."""
    return [
        {"source": "published", "method": "IGPO", "baseline": "GRPO", "benchmark": row["benchmark"]}
        | {name: float(row[name]) / 100 for name in SHARES}
        | {"printed_in": published.printed_in("per_question")}
        for row in published.read("per_question")
    ]


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of a table for a reader, shares in per cent."""
    lines = [
        [
            f"{method_name(row)} against {method_name({'method': row['baseline']})}",
            row["benchmark"],
            *(percent(row[name]) for name in SHARES),
        ]
        for row in rows
    ]
    return ["method", "benchmark", *SHARES], lines


def provenance_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): what each row of ours was made from; hashes are shortened."""
    lines = [
        [
            row["method"],
            row["benchmark"],
            str(row["n"]),
            row["seed_names"] or "–",
            row["questions_sha256"][:HASH],
            *(hashes(row[name]) for name in ("policy_sha256", "baseline_policy_sha256")),
        ]
        for row in rows
    ]
    return ["method", "benchmark", "n", "seeds", "questions", "policies", "the baseline's"], lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: sections.Tables) -> str:
    """Write the table in three forms."""
    section = params.per_question
    evaluations = [read_evaluation(path) for path in args.metrics]
    ours = our_rows(evaluations, list(section["rows"]), section["baseline"], params.metric)
    theirs, note = published_rows(), with_metric("per_question", params.metric)
    parts = [
        Part("Ours: better, equal and worse questions", *cells(ours), note),
        Part("Where ours come from", *provenance_cells(ours), NOTES["provenance"]),
        Part(
            "Published by the paper", *cells(theirs), published_note("per_question", "Per cent of questions")
        ),
    ]
    write_forms([*ours, *theirs], COLUMNS, parts, args.out / "per_question")
    return f"{len(ours)} rows"


main = stage.command(sections.Tables, arguments, run, __doc__)

if __name__ == "__main__":
    main()
