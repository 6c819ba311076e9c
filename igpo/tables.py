"""Result tables: `metrics.json of evaluations, iterations -> main.{csv,md,tex}, metrics.json, curves.csv`.

F1 and the rates are shares in the CSV files, per cent for the reader. Several seeds of an arm become one
row: the mean, the sample standard deviation over seeds (`f1_std`), and the mean of the seeds' 95 % bounds,
which stand for the choice of questions alone. The published rows are the paper's, told apart by `source`.
"""

import argparse
import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pyarrow.compute as pc

from igpo import schema, tables_text
from retrieval import stage, tables
from retrieval.stage import UserError

PUBLISHED = Path(__file__).with_name("published.csv")  # arXiv:2510.14967v2, Table 1: F1 in per cent
METRICS = ("f1", "em", "f1_format", "answer_rate", "format_failure", "turns", "searches")
COLUMNS = (
    "source",
    "method",
    "seeds",
    "benchmark",
    "n",
    *METRICS,
    "f1_low",
    "f1_high",
    "f1_std",
    "f1_difference",
)


class Evaluation(NamedTuple):
    """One evaluated policy: the arm it belongs to, its seed (None: not trained), its metrics file."""

    arm: str
    seed: int | None
    metrics: dict[str, Any]


def read_evaluation(path: Path) -> Evaluation:
    """Read `<name>/metrics.json`; the folder's name is `ARM` or `ARM_sSEED`."""
    arm, _, seed = re.fullmatch(r"(.+?)(_s(\d+))?", path.absolute().parent.name).groups()  # type: ignore[union-attr]
    metrics = tables.read_json(path)
    for key in ("benchmarks", "overall", "provenance"):
        if key not in metrics:
            raise UserError(f"{path}: not a metrics file: {key!r} is missing")
    return Evaluation(arm, int(seed) if seed else None, metrics)


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Raise UserError unless all evaluations answered the same questions."""
    for evaluation in evaluations[1:]:
        for key, found in (("questions", lambda e: e.metrics["provenance"].get("questions")), ("n", _sizes)):
            if found(evaluation) != found(evaluations[0]):
                names = f"{evaluations[0].arm} and {evaluation.arm}"
                raise UserError(f"{names} were evaluated on different questions ({key} differs)")


def mean(values: Mapping[str, Any], metric: str) -> float | None:
    """The mean of a metric in a block of metrics.json; None where it was not measured."""
    return (values.get(metric) or {}).get("mean")


def _sizes(evaluation: Evaluation) -> dict[str, int]:
    return {name: values["n"] for name, values in evaluation.metrics["benchmarks"].items()}


def table_rows(evaluations: Sequence[Evaluation], baseline: str) -> list[dict[str, Any]]:
    """One row per arm and benchmark, in the order given; `overall` too where there are several benchmarks."""
    check_comparable(evaluations)
    arms = list(dict.fromkeys(evaluation.arm for evaluation in evaluations))
    if baseline not in arms:
        raise UserError(f"tables.baseline: {baseline!r} was not evaluated; evaluated: {arms}")
    blocks = {name: [e.metrics["benchmarks"][name] for e in evaluations] for name in _sizes(evaluations[0])}
    if len(blocks) > 1:
        blocks["overall"] = [evaluation.metrics["overall"] for evaluation in evaluations]
    rows = []
    for benchmark, block in blocks.items():
        found = {
            arm: [values for e, values in zip(evaluations, block, strict=True) if e.arm == arm]
            for arm in arms
        }
        zero = statistics.fmean(values["f1"]["mean"] for values in found[baseline])
        rows += [{"method": arm, "benchmark": benchmark, **_row(found[arm], zero)} for arm in arms]
    return rows


def _row(seeds: Sequence[Mapping[str, Any]], zero: float) -> dict[str, Any]:
    """The mean of one arm's seeds on one benchmark; metrics that a seed lacks stay empty."""
    row: dict[str, Any] = {"source": "ours", "seeds": len(seeds), "n": seeds[0]["n"]}
    for metric in METRICS:
        means = [found for values in seeds if (found := mean(values, metric)) is not None]
        row[metric] = statistics.fmean(means) if len(means) == len(seeds) else None
    for bound in ("low", "high"):
        row[f"f1_{bound}"] = statistics.fmean(values["f1"][bound] for values in seeds)
    row["f1_std"] = statistics.stdev(values["f1"]["mean"] for values in seeds) if len(seeds) > 1 else None
    row["f1_difference"] = row["f1"] - zero
    return row


def published_rows() -> list[dict[str, Any]]:
    """The paper's main table: one row per method and benchmark, F1 as a share, None for a dash."""
    with PUBLISHED.open(newline="") as file:
        return [
            {"source": "published", "method": row["method"], "benchmark": name, "f1": float(value) / 100}
            for row in csv.DictReader(file)
            for name, value in row.items()
            if name not in ("method", "family") and value
        ]


def curve_row(folder: Path) -> dict[str, Any]:
    """Metrics of one iteration, of the policy that acted in it, from `runs/<arm>/s<seed>/<kkk>`."""
    arm, seed, k = folder.absolute().parts[-3:]
    overall = tables.read_json(folder / "metrics.json")["overall"]
    scores = tables.read(folder / "scores.parquet", schema.SCORES)
    row = {"arm": arm, "seed": int(seed.removeprefix("s")), "iteration": int(k), "n": overall["n"]}
    row |= {metric: mean(overall, metric) for metric in METRICS}
    row |= {"reward": pc.mean(scores["outcome"]).as_py(), "info_gain": pc.mean(scores["info_gain"]).as_py()}
    return row | tables.read_json(folder / "policy.json")["metrics"]


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """CSV with floats in six significant digits, so that equal numbers give equal bytes."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
    return out.getvalue()


def flat(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{arm: {benchmark: {metric: value}}}` of our rows, for `dvc metrics`."""
    result: dict[str, Any] = {}
    for row in rows:
        values = {key: round(row[key], 6) for key in METRICS if row[key] is not None}
        result.setdefault(row["method"], {})[row["benchmark"]] = values
    return result


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all."""
    with tables.replacing(path) as temporary:
        temporary.write_text(text)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    parser.add_argument("--iterations", type=Path, nargs="*", default=[], metavar="DIR", help="runs/ARM/sS/K")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write the five files."""
    ours = table_rows([read_evaluation(path) for path in args.metrics], params.baseline)
    published = published_rows()
    curves = [curve_row(folder) for folder in args.iterations]
    known = ["arm", "seed", "iteration", "n", *METRICS, "reward", "info_gain"]
    columns = [*known, *sorted({key for row in curves for key in row} - set(known))]
    write_text(csv_text([*ours, *published], COLUMNS), args.out / "main.csv")
    write_text(tables_text.markdown(ours, published), args.out / "main.md")
    write_text(tables_text.latex(ours, published), args.out / "main.tex")
    write_text(csv_text(curves, columns), args.out / "curves.csv")
    tables.write_json(flat(ours), args.out / "metrics.json")
    best = max(ours, key=lambda row: row["f1"])
    return f"{len(ours)} rows; best: {best['method']}, F1 {best['f1']:.3f} on {best['benchmark']}"


main = stage.command("tables", arguments, run, __doc__)

if __name__ == "__main__":
    main()
