"""Result tables: `metrics.json of evaluations, iterations -> main.{csv,md,tex}, metrics.json, curves.csv`.

F1 and the rates are shares in the CSV files, per cent for the reader. Several seeds of an arm become one
row: the mean, the sample standard deviation over seeds (`f1_std`), and a 95 % interval from resampling both
questions and seeds, which understates the spread of few seeds by a factor of sqrt(1 - 1 / seeds). Differences
to the baseline are paired by question and seed. `tables.metric` names what intervals and differences are of.
Every row of ours says what it was made from; the published rows are the paper's, told apart by `source`, and
`printed_in` says where.
"""

import argparse
import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from igpo import published, schema, tables_text, validation
from igpo.evaluate import FAILURES, PER_QUESTION, interval, paired_difference
from igpo.validation import DEV, run_of, with_dev
from retrieval import stage, tables
from retrieval.errors import UserError

METRICS = ("f1", "em", "f1_format", "answer_rate", "format_failure", "turns", "searches")
FURTHER = (
    "f1_squad",
    "em_squad",
    "em_format",
    "f1_squad_format",
    "em_squad_format",
    *FAILURES,
    "gold_recall",
    "mbe",
)
SETTINGS = ("protocol", "retriever", "decoding", "judge", "corpus", "model", "code")  # of provenance


HOPS = (1, 2)  # that questions may have, which are told apart in tables


def hop_columns(metric: str, hops: int) -> list[str]:
    """Number of questions of so many hops, the metric on them, its paired difference with an interval."""
    name = f"{metric}_{hops}hop"
    return [f"n_{hops}hop", name, *(f"{name}_difference{end}" for end in ("", "_low", "_high"))]


def columns(metric: str) -> tuple[str, ...]:
    """The columns of a table whose intervals and differences are of `metric`."""
    return (
        *("source", "method", "seeds", "benchmark", "n", *METRICS),
        *(f"{metric}_{name}" for name in ("low", "high", "std", "difference")),
        *FURTHER,
        *(f"{metric}_difference_{name}" for name in ("low", "high", "p")),
        *("n_covered", f"{metric}_covered", "n_uncovered", f"{metric}_uncovered"),
        *(name for hops in HOPS for name in hop_columns(metric, hops)),
        *("seed_names", "questions_sha256", "policy_sha256", "iteration", "selected", *SETTINGS),
        *("metric", "printed_in"),
    )


class Evaluation(NamedTuple):
    """One evaluated policy: its arm, its seed (None: not trained), its metrics, its table of questions."""

    arm: str
    seed: int | None
    metrics: dict[str, Any]
    questions: list[dict[str, Any]]


def read_evaluation(path: Path) -> Evaluation:
    """Read `<name>/metrics.json` and `questions.parquet`; the folder's name is `ARM` or `ARM_sSEED`."""
    arm, _, seed = re.fullmatch(r"(.+?)(_s(\d+))?", path.absolute().parent.name).groups()  # type: ignore[union-attr]
    metrics = tables.read_json(path)
    for key in ("benchmarks", "overall", "provenance"):
        if key not in metrics:
            raise UserError(f"{path}: not a metrics file: {key!r} is missing")
    by_question = path.with_name("questions.parquet")
    questions = tables.read(by_question, PER_QUESTION).to_pylist()
    known = metrics["provenance"].get("by_question")
    if known and known != tables.sha256(by_question):
        raise UserError(f"{by_question}: of another evaluation than {path}; give each a folder of its own")
    return Evaluation(arm, int(seed) if seed else None, metrics, questions)


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Raise UserError unless all evaluations are of the same questions and, if trained, of the same seeds."""
    for evaluation in evaluations[1:]:
        for key, found in COMPARED.items():
            if found(evaluation) != found(evaluations[0]):
                names = f"{evaluations[0].arm} and {evaluation.arm}"
                raise UserError(f"{names} were evaluated on different questions ({key} differs)")
    listed = Counter((evaluation.arm, evaluation.seed) for evaluation in evaluations)
    if twice := [arm for (arm, _), number in listed.items() if number > 1]:
        raise UserError(f"--metrics: an evaluation of {twice[0]} is given twice")
    trained = by_arm([evaluation for evaluation in evaluations if evaluation.seed is not None])
    seeds = {arm: [evaluation.seed for evaluation in found] for arm, found in trained.items()}
    if any(found != next(iter(seeds.values())) for found in seeds.values()):
        raise UserError(f"the arms were evaluated with different seeds: {seeds}")


def mean(values: Mapping[str, Any], metric: str) -> float | None:
    """The mean of a metric in a block of metrics.json; None where it was not measured."""
    return (values.get(metric) or {}).get("mean")


def _sizes(evaluation: Evaluation) -> dict[str, int]:
    return {name: values["n"] for name, values in evaluation.metrics["benchmarks"].items()}


COMPARED: dict[str, Callable[[Evaluation], Any]] = {
    "questions": lambda evaluation: evaluation.metrics["provenance"].get("questions"),
    "n": _sizes,
    "question_id": lambda evaluation: [row["question_id"] for row in evaluation.questions],
}


def table_rows(evaluations: Sequence[Evaluation], params: SimpleNamespace) -> list[dict[str, Any]]:
    """One row per arm and benchmark, in the order given; `overall` too where there are several benchmarks."""
    check_comparable(evaluations)
    seeds = by_arm(evaluations)
    if params.baseline not in seeds:
        raise UserError(f"tables.baseline: {params.baseline!r} was not evaluated; evaluated: {list(seeds)}")
    benchmarks, metric = list(_sizes(evaluations[0])), params.metric
    rows: list[dict[str, Any]] = []
    for benchmark in [*benchmarks, *(["overall"] if len(benchmarks) > 1 else [])]:
        block = {
            arm: {"source": "ours", "method": arm, "benchmark": benchmark, **_row(found, benchmark, params)}
            for arm, found in seeds.items()
        }
        zero = block[params.baseline][metric]
        compared = question_values(seeds[params.baseline], benchmark, metric)
        for arm, row in block.items():
            values = question_values(seeds[arm], benchmark, metric)
            paired = paired_difference(values, compared, params.bootstrap, params.seed)
            row[f"{metric}_difference"] = row[metric] - zero
            row |= {f"{metric}_difference_{name}": paired[name] for name in ("low", "high", "p")}
            for hops in HOPS:
                row |= _by_hops(seeds[arm], seeds[params.baseline], benchmark, hops, params)
        rows += block.values()
    return rows


def by_arm(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of every arm, one per seed, in the order given."""
    arms = dict.fromkeys(evaluation.arm for evaluation in evaluations)
    return {arm: [evaluation for evaluation in evaluations if evaluation.arm == arm] for arm in arms}


def question_values(
    seeds: Sequence[Evaluation],
    benchmark: str,
    metric: str,
    covered: bool | None = None,
    hops: int | None = None,
) -> np.ndarray:
    """(seeds, questions): a metric on a benchmark (or `overall`); `covered`, `hops`: on these questions only.

    Raises UserError where a question lacks it.
    """
    values = np.array(
        [
            [
                row[metric]
                for row in evaluation.questions
                if benchmark in (row["benchmark"], "overall")
                and covered in (row["covered"], None)
                and hops in (row["hops"], None)
            ]
            for evaluation in seeds
        ],
        dtype=np.float64,
    )
    if np.isnan(values).any():
        raise UserError(f"tables.metric: {metric!r} is unknown for questions of {benchmark!r}; name another")
    return values


def _by_hops(
    seeds: Sequence[Evaluation],
    baseline: Sequence[Evaluation],
    benchmark: str,
    hops: int,
    params: SimpleNamespace,
) -> dict[str, Any]:
    """`hop_columns` of one arm's seeds; without questions of so many hops all but their number is empty."""
    metric = params.metric
    values, zero = (question_values(each, benchmark, metric, hops=hops) for each in (seeds, baseline))
    if not values.size:
        return dict(zip(hop_columns(metric, hops), [0, *[None] * 4], strict=True))
    paired = paired_difference(values, zero, params.bootstrap, params.seed)
    found = [values.shape[1], float(values.mean()), *(paired[name] for name in ("mean", "low", "high"))]
    return dict(zip(hop_columns(metric, hops), found, strict=True))


def _row(seeds: Sequence[Evaluation], benchmark: str, params: SimpleNamespace) -> dict[str, Any]:
    """The mean of one arm's seeds on one benchmark; metrics that a seed lacks stay empty."""
    blocks = [{**e.metrics["benchmarks"], "overall": e.metrics["overall"]}[benchmark] for e in seeds]
    row: dict[str, Any] = {"seeds": len(seeds), "n": blocks[0]["n"]}
    for metric in (*METRICS, *FURTHER):
        means = [found for values in blocks if (found := mean(values, metric)) is not None]
        row[metric] = statistics.fmean(means) if len(means) == len(seeds) else None
    return row | _headline(seeds, blocks, benchmark, params) | provenance(seeds)


def _headline(
    seeds: Sequence[Evaluation], blocks: Sequence[Mapping[str, Any]], benchmark: str, params: SimpleNamespace
) -> dict[str, Any]:
    """Interval, spread over seeds and split by coverage of `params.metric`."""
    metric, several = params.metric, len(seeds) > 1
    values = question_values(seeds, benchmark, metric)
    bounds = interval(values, params.bootstrap, params.seed) if several else blocks[0][metric]
    row: dict[str, Any] = {"metric": metric}
    row |= {f"{metric}_{bound}": bounds[bound] for bound in ("low", "high")}
    row[f"{metric}_std"] = statistics.stdev(block[metric]["mean"] for block in blocks) if several else None
    for name, covered in {"covered": True, "uncovered": False}.items():
        values = question_values(seeds, benchmark, metric, covered).mean(0)
        row[f"n_{name}"] = len(values)
        row[f"{metric}_{name}"] = statistics.fmean(values) if len(values) else None
    return row


def provenance(seeds: Sequence[Evaluation]) -> dict[str, str]:
    """What a row was made from: its seeds, each one's policy and iteration, and their `settings`."""
    known = [evaluation.metrics["provenance"] for evaluation in seeds]
    return {
        "seed_names": " ".join(str(e.seed) for e in seeds if e.seed is not None),
        "policy_sha256": " ".join(values.get("policy") or "" for values in known),
        "iteration": " ".join(in_words(values.get("iteration")) for values in known),
        "selected": in_words(known[0].get("selected")),
        **settings(known),
    }


def settings(known: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`SETTINGS` and the questions' SHA-256 of provenances; one in which they differ has all its values."""
    values = {name: "; ".join(dict.fromkeys(in_words(each.get(name)) for each in known)) for name in SETTINGS}
    return {"questions_sha256": known[0].get("questions") or "", **values}


def in_words(value: Any) -> str:
    """A value of a provenance in words, "" for None; `code` has a digest for each stage."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}:{item}" for key, item in value.items())
    return "" if value is None else str(value)


def curve_row(folder: Path) -> dict[str, Any]:
    """Metrics of one iteration, of the policy that acted in it, from `runs/<arm>/s<seed>/<kkk>`.

    `policy_sha256` is that policy's; `step_reward` is the mean of what the arm rewards search turns by.
    """
    arm, seed, k = run_of(folder)
    metrics = tables.read_json(folder / "metrics.json")
    overall = metrics["overall"]
    scores = tables.read(folder / "scores.parquet", schema.SCORES)
    row = {"arm": arm, "seed": int(seed), "iteration": int(k), "n": overall["n"]}
    row |= {"policy_sha256": metrics["provenance"].get("policy"), **settings([metrics["provenance"]])}
    row |= {metric: mean(overall, metric) for metric in (*METRICS, *FURTHER)}
    row |= {"reward": pc.mean(scores["outcome"]).as_py(), "step_reward": pc.mean(scores["info_gain"]).as_py()}
    for manifest in (folder / "policy.json", folder / "critic/policy.json"):
        row |= tables.read_json(manifest)["metrics"] if manifest.exists() else {}
    health = tables.read_json(folder / "health.json")
    return row | health | {"warnings": " | ".join(health["warnings"])}


def curve_rows(iterations: Sequence[Path], validations: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """The rows of all iterations, and what `validations` say of their policies (`validation.with_dev`)."""
    return with_dev([curve_row(folder) for folder in iterations], validations)


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


def write_forms(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], parts: Sequence[tables_text.Part], stem: Path
) -> None:
    """Write a comparison as STEM.csv, of its rows, and as STEM.md and STEM.tex, of its parts."""
    write_text(csv_text(rows, columns), stem.with_suffix(".csv"))
    write_text(tables_text.markdown_parts(parts), stem.with_suffix(".md"))
    write_text(tables_text.latex_parts(parts), stem.with_suffix(".tex"))


def summary(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """What a log says of a table."""
    row = max(rows, key=lambda row: row[metric])
    return f"{len(rows)} rows; highest {metric}: {row['method']}, {row[metric]:.3f} on {row['benchmark']}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    validation.arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write the five files."""
    ours = table_rows([read_evaluation(path) for path in args.metrics], params)
    theirs = published.f1_rows("main")
    curves = curve_rows(args.iterations, args.validations)
    first = ["arm", "seed", "iteration", "n", *METRICS, "reward", "step_reward", "info_gain", "updates", *DEV]
    last = ["policy_sha256", "questions_sha256", *SETTINGS]
    further = sorted({key for row in curves for key in row} - {*first, *last})
    write_text(csv_text([*ours, *theirs], columns(params.metric)), args.out / "main.csv")
    write_text(tables_text.markdown(ours, theirs), args.out / "main.md")
    write_text(tables_text.latex(ours, theirs), args.out / "main.tex")
    write_text(csv_text(curves, [*first, *further, *last]), args.out / "curves.csv")
    tables.write_json(flat(ours), args.out / "metrics.json")
    return summary(ours, params.metric)


main = stage.command("tables", arguments, run, __doc__)

if __name__ == "__main__":
    main()
