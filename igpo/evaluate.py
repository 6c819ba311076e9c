"""Evaluation: `rollouts, questions -> metrics.json` (and a table of questions beside it).

Every number is a mean over questions with a bootstrap 95 % interval, so that a question with several samples
counts once.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from igpo import reward, schema
from igpo.schema import trajectories
from retrieval import stage, tables
from retrieval.stage import UserError

METRICS = (
    "f1",  # a malformed trajectory counts 0
    "em",
    "f1_format",  # a malformed trajectory counts the format penalty
    "answer_rate",
    "format_failure",  # ended by a malformed turn, the token limit or an error
    "turns",
    "searches",  # queries run
    "gold_recall",  # share of the supporting passages that were shown; null where they are unknown
)
PER_QUESTION = pa.schema(
    [("question_id", pa.string()), ("benchmark", pa.string()), ("type", pa.string()), ("covered", pa.bool_())]
    + [(name, pa.float32()) for name in METRICS]
)


def trajectory_metrics(
    rows: list[dict[str, Any]], question: Mapping[str, Any], penalty: float
) -> dict[str, Any]:
    """The metrics of one trajectory."""
    last = rows[-1]
    answer, golds = last["answer"], question["answers"]
    shown = {hit for row in rows for hit in row["hit_ids"]}
    supporting = set(question["supporting_ids"])
    return {
        "f1": reward.f1(answer, golds),
        "em": reward.exact_match(answer, golds),
        "f1_format": reward.outcome(answer, golds, penalty),
        "answer_rate": float(answer is not None),
        "format_failure": float(last["stop"] not in ("answered", "turn_limit")),
        "turns": float(last["turn"]),
        "searches": float(sum(len(row["queries"]) for row in rows if row["tool"] == "web_search")),
        "gold_recall": len(shown & supporting) / len(supporting) if supporting else None,
    }


def question_metrics(
    rows: list[dict[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
    penalty: float,
    uncovered: set[str] | None,
) -> list[dict[str, Any]]:
    """One row per question: means over its samples. Raises UserError for an unknown question."""
    result = []
    for question_id, group in itertools.groupby(trajectories(rows), key=lambda t: t[0]["question_id"]):
        if question_id not in questions:
            raise UserError(f"the questions file lacks {question_id!r}, which the rollouts hold")
        question = questions[question_id]
        samples = [trajectory_metrics(trajectory, question, penalty) for trajectory in group]
        means = {
            name: None if samples[0][name] is None else float(np.mean([sample[name] for sample in samples]))
            for name in METRICS
        }
        covered = None if uncovered is None else question_id not in uncovered
        known = {"question_id": question_id, "benchmark": question["benchmark"], "type": question["type"]}
        result.append({**known, "covered": covered, **means})
    return result


def interval(values: list[float], resamples: int, seed: int) -> dict[str, float]:
    """Mean with the 2.5 and 97.5 percentiles of bootstrap means over the questions."""
    data = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(data), (resamples, len(data)))
    low, high = np.percentile(data[draws].mean(1), [2.5, 97.5])
    return {"mean": float(data.mean()), "low": float(low), "high": float(high)}


def summary(rows: list[dict[str, Any]], params: SimpleNamespace) -> dict[str, Any]:
    """Number of questions and every metric's interval; a metric nobody has is null."""
    result: dict[str, Any] = {"n": len(rows)}
    for name in METRICS:
        values = [row[name] for row in rows if row[name] is not None]
        result[name] = interval(values, params.bootstrap, params.seed) if values else None
    return result


def split_by(rows: list[dict[str, Any]], name: str, params: SimpleNamespace) -> dict[str, Any]:
    """Summaries by the values of one column."""
    values = sorted({row[name] for row in rows})
    return {value: summary([row for row in rows if row[name] == value], params) for value in values}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--coverage", type=Path, metavar="FILE", help="splits scores by what the index holds")
    parser.add_argument("--provenance", default="{}", metavar="JSON", help="arm, seed, iteration … to record")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Compute and write the metrics."""
    table = tables.read(args.rollouts, schema.ROLLOUTS)
    rows = table.to_pylist()
    if not rows:
        raise UserError(f"{args.rollouts}: no rows")
    listed = tables.read(args.questions, schema.QUESTIONS).to_pylist()
    uncovered = set(tables.read_json(args.coverage)["uncovered"]) if args.coverage else None
    by_id = {question["question_id"]: question for question in listed}
    scored = question_metrics(rows, by_id, params.format_penalty, uncovered)
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    metrics = {
        "benchmarks": split_by(scored, "benchmark", params),
        "types": split_by(scored, "type", params),
        "overall": summary(scored, params),
        "provenance": {
            **json.loads(args.provenance),
            **{name: meta.get(name) for name in ("policy", "retriever", "decoding", "protocol", "questions")},
        },
    }
    if uncovered is not None:
        known = [{**row, "covered": "covered" if row["covered"] else "uncovered"} for row in scored]
        metrics["coverage"] = split_by(known, "covered", params)
    tables.write(scored, PER_QUESTION, args.out.with_name("questions.parquet"), ("question_id",))
    tables.write_json(metrics, args.out)
    f1 = metrics["overall"]["f1"]
    return f"{len(scored)} questions, F1 {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]"


main = stage.command("evaluate", arguments, run, __doc__)

if __name__ == "__main__":
    main()
