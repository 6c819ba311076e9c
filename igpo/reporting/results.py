"""Metrics of evaluations -> rows of result tables."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from igpo.experiment.schema import FAILURES, PER_QUESTION
from igpo.reporting.intervals import interval, paired_difference
from pipeline import sections, storage
from pipeline.errors import UserError

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
    questions: pd.DataFrame


def read_evaluation(path: Path) -> Evaluation:
    """Read `<name>/metrics.json` and `questions.parquet`; the folder's name is `ARM` or `ARM_sSEED`."""
    arm, _, seed = re.fullmatch(r"(.+?)(_s(\d+))?", path.absolute().parent.name).groups()  # type: ignore[union-attr]
    metrics = storage.read_json(path)
    for key in ("benchmarks", "overall", "provenance"):
        if key not in metrics:
            raise UserError(f"{path}: not a metrics file: {key!r} is missing")
    by_question = path.with_name("questions.parquet")
    questions = storage.read(by_question, PER_QUESTION).to_pandas()
    digest = metrics["provenance"].get("by_question")
    if digest and digest != storage.sha256(by_question):
        raise UserError(f"{by_question}: of another evaluation than {path}; give each a folder of its own")
    return Evaluation(arm, int(seed) if seed else None, metrics, questions)


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Raise UserError unless all evaluations are of the same questions and, if trained, of the same seeds."""
    for evaluation in evaluations[1:]:
        for key, trait in TRAITS.items():
            if trait(evaluation) != trait(evaluations[0]):
                names = f"{evaluations[0].arm} and {evaluation.arm}"
                raise UserError(f"{names} were evaluated on different questions ({key} differs)")
    numbers = Counter((evaluation.arm, evaluation.seed) for evaluation in evaluations)
    if twice := [arm for (arm, _), number in numbers.items() if number > 1]:
        raise UserError(f"--metrics: an evaluation of {twice[0]} is given twice")
    arms = by_arm([evaluation for evaluation in evaluations if evaluation.seed is not None])
    seeds = {arm: [evaluation.seed for evaluation in own] for arm, own in arms.items()}
    if any(own != next(iter(seeds.values())) for own in seeds.values()):
        raise UserError(f"the arms were evaluated with different seeds: {seeds}")


def mean(values: Mapping[str, Any], metric: str) -> float | None:
    """The mean of a metric in a block of metrics.json; None if it was not measured."""
    return (values.get(metric) or {}).get("mean")


def _sizes(evaluation: Evaluation) -> dict[str, int]:
    return {name: values["n"] for name, values in evaluation.metrics["benchmarks"].items()}


TRAITS: dict[str, Callable[[Evaluation], Any]] = {
    "questions": lambda evaluation: evaluation.metrics["provenance"].get("questions"),
    "n": _sizes,
    "question_id": lambda evaluation: evaluation.questions["question_id"].tolist(),
}


def table_rows(evaluations: Sequence[Evaluation], params: sections.Tables) -> list[dict[str, Any]]:
    """One row per arm and benchmark, in the order given; `overall` too if there are several benchmarks."""
    check_comparable(evaluations)
    seeds = by_arm(evaluations)
    if params.baseline not in seeds:
        raise UserError(f"tables.baseline: {params.baseline!r} was not evaluated; evaluated: {list(seeds)}")
    benchmarks, metric = list(_sizes(evaluations[0])), params.metric
    rows: list[dict[str, Any]] = []
    for benchmark in [*benchmarks, *(["overall"] if len(benchmarks) > 1 else [])]:
        block = {
            arm: {"source": "ours", "method": arm, "benchmark": benchmark, **_row(own, benchmark, params)}
            for arm, own in seeds.items()
        }
        zero = block[params.baseline][metric]
        theirs = question_values(seeds[params.baseline], benchmark, metric)
        for arm, row in block.items():
            values = question_values(seeds[arm], benchmark, metric)
            difference = paired_difference(values, theirs, params.bootstrap, params.seed)
            row[f"{metric}_difference"] = row[metric] - zero
            row |= {f"{metric}_difference_{name}": difference[name] for name in ("low", "high", "p")}
            for hops in HOPS:
                row |= _by_hops(seeds[arm], seeds[params.baseline], benchmark, hops, params)
        rows += block.values()
    return rows


def by_arm(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """The evaluations of every arm, one per seed, in the order given."""
    arms = dict.fromkeys(evaluation.arm for evaluation in evaluations)
    return {arm: [evaluation for evaluation in evaluations if evaluation.arm == arm] for arm in arms}


def part(questions: pd.DataFrame, benchmark: str, **columns: Any) -> pd.DataFrame:
    """Those questions of a benchmark (or `overall`) that have these values in their columns."""
    rows = questions if benchmark == "overall" else questions[questions["benchmark"] == benchmark]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


def question_values(seeds: Sequence[Evaluation], benchmark: str, metric: str, **columns: Any) -> np.ndarray:
    """(seeds, questions): a metric on a `part` of the questions. Raises UserError if a question lacks it."""
    parts = [part(evaluation.questions, benchmark, **columns) for evaluation in seeds]
    values = np.array([rows[metric].to_numpy(np.float64) for rows in parts])
    if np.isnan(values).any():
        raise UserError(f"tables.metric: {metric!r} is unknown for questions of {benchmark!r}; name another")
    return values


def _by_hops(
    seeds: Sequence[Evaluation],
    baseline: Sequence[Evaluation],
    benchmark: str,
    hops: int,
    params: sections.Tables,
) -> dict[str, Any]:
    """`hop_columns` of one arm's seeds; without questions of so many hops all but their number is empty."""
    metric = params.metric
    values, zero = (question_values(each, benchmark, metric, hops=hops) for each in (seeds, baseline))
    if not values.size:
        return dict(zip(hop_columns(metric, hops), [0, *[None] * 4], strict=True))
    difference = paired_difference(values, zero, params.bootstrap, params.seed)
    bounds = (difference[name] for name in ("mean", "low", "high"))
    numbers = [values.shape[1], float(values.mean()), *bounds]
    return dict(zip(hop_columns(metric, hops), numbers, strict=True))


def _row(seeds: Sequence[Evaluation], benchmark: str, params: sections.Tables) -> dict[str, Any]:
    """The mean of one arm's seeds on one benchmark; metrics that a seed lacks stay empty."""
    blocks = [{**e.metrics["benchmarks"], "overall": e.metrics["overall"]}[benchmark] for e in seeds]
    row: dict[str, Any] = {"seeds": len(seeds), "n": blocks[0]["n"]}
    for metric in (*METRICS, *FURTHER):
        means = [value for block in blocks if (value := mean(block, metric)) is not None]
        row[metric] = statistics.fmean(means) if len(means) == len(seeds) else None
    return row | _headline(seeds, blocks, benchmark, params) | provenance(seeds)


def _headline(
    seeds: Sequence[Evaluation], blocks: Sequence[Mapping[str, Any]], benchmark: str, params: sections.Tables
) -> dict[str, Any]:
    """Interval, spread over seeds and split by coverage of `params.metric`."""
    metric, several = params.metric, len(seeds) > 1
    values = question_values(seeds, benchmark, metric)
    bounds = interval(values, params.bootstrap, params.seed) if several else blocks[0][metric]
    row: dict[str, Any] = {"metric": metric}
    row |= {f"{metric}_{end}": bounds[end] for end in ("low", "high")}
    row[f"{metric}_std"] = statistics.stdev(block[metric]["mean"] for block in blocks) if several else None
    for name, covered in {"covered": True, "uncovered": False}.items():
        values = question_values(seeds, benchmark, metric, covered=covered).mean(0)
        row[f"n_{name}"] = len(values)
        row[f"{metric}_{name}"] = statistics.fmean(values) if len(values) else None
    return row


def provenance(seeds: Sequence[Evaluation]) -> dict[str, str]:
    """What a row was made from: its seeds, each one's policy and iteration, and their `settings`."""
    origins = [evaluation.metrics["provenance"] for evaluation in seeds]
    return {
        "seed_names": " ".join(str(e.seed) for e in seeds if e.seed is not None),
        "policy_sha256": " ".join(values.get("policy") or "" for values in origins),
        "iteration": " ".join(in_words(values.get("iteration")) for values in origins),
        "selected": in_words(origins[0].get("selected")),
        **settings(origins),
    }


def settings(origins: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`SETTINGS` and the questions' SHA-256 of provenances; one in which they differ has all its values."""
    words = {name: dict.fromkeys(in_words(origin.get(name)) for origin in origins) for name in SETTINGS}
    values = {name: "; ".join(each) for name, each in words.items()}
    return {"questions_sha256": origins[0].get("questions") or "", **values}


def in_words(value: Any) -> str:
    """A value of a provenance in words, "" for None; `code` has a digest for each stage."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}:{item}" for key, item in value.items())
    return "" if value is None else str(value)


def summary(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """What a log says of a table."""
    row = max(rows, key=lambda row: row[metric])
    return f"{len(rows)} rows; highest {metric}: {row['method']}, {row[metric]:.3f} on {row['benchmark']}"
