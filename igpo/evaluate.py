"""Evaluation: `rollouts, questions -> metrics.json` (and a table of questions beside it).

Every number is a mean over questions with a bootstrap 95 % interval, so that a question with several samples
counts once.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from igpo.credit import answer_metrics
from igpo.data.audit import read_coverage
from igpo.experiment import schema
from igpo.experiment.schema import FAILURES, JUDGEMENTS, METRICS, PER_QUESTION, passages_shown, trajectories
from igpo.reporting.intervals import interval
from pipeline import sections, stage, storage
from pipeline.errors import UserError
from pipeline.settings import parse_json

ANSWER_METRICS = {
    "f1": answer_metrics.f1,  # the paper's
    "em": answer_metrics.exact_match,
    "f1_squad": answer_metrics.squad_f1,
    "em_squad": answer_metrics.squad_exact_match,
}


def trajectory_metrics(
    rows: list[dict[str, Any]], question: Mapping[str, Any], penalty: float
) -> dict[str, Any]:
    """The metrics of one trajectory."""
    last = rows[-1]
    answer, stop = last["answer"], last["stop"].partition(":")[0]
    values = {name: metric(answer, question["answers"]) for name, metric in ANSWER_METRICS.items()}
    supporting = set(question["supporting_ids"])
    return {
        **values,
        **{f"{name}_format": penalty if answer is None else value for name, value in values.items()},
        "answer_rate": float(answer is not None),
        "format_failure": float(stop not in ("answered", "turn_limit")),
        **{name: float(stop == name) for name in FAILURES},
        "turns": float(last["turn"]),
        "searches": float(sum(len(row["queries"]) for row in rows if row["tool"] == "web_search")),
        "gold_recall": len(passages_shown(rows) & supporting) / len(supporting) if supporting else None,
    }


def question_metrics(
    rows: list[dict[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
    penalty: float,
    uncovered_ids: set[str] | None,
    judgements: Mapping[tuple[str, int], float | None] | None = None,
) -> list[dict[str, Any]]:
    """One row per question: means over its samples, those without a value left out.

    Raises UserError for a question that isn't in `questions` or a trajectory that isn't in `judgements`.
    """
    result = []
    for question_id, group in itertools.groupby(trajectories(rows), key=lambda t: t[0]["question_id"]):
        if question_id not in questions:
            raise UserError(f"the questions file lacks {question_id!r}, which the rollouts hold")
        question = questions[question_id]
        samples = [
            {**trajectory_metrics(rows, question, penalty), "mbe": _judgement(rows[0], judgements)}
            for rows in group
        ]
        means = {}
        for name in METRICS:
            values = [sample[name] for sample in samples if sample[name] is not None]
            means[name] = float(np.mean(values)) if values else None
        is_covered = None if uncovered_ids is None else question_id not in uncovered_ids
        labels = {name: question[name] for name in ("benchmark", "type", "hops")}
        result.append({"question_id": question_id, **labels, "covered": is_covered, **means})
    return result


def _judgement(
    row: Mapping[str, Any], judgements: Mapping[tuple[str, int], float | None] | None
) -> float | None:
    key = (row["question_id"], row["sample"])
    if judgements is not None and key not in judgements:
        raise UserError(f"the judgements lack trajectory {key}, which the rollouts hold; judge again")
    return None if judgements is None else judgements[key]


def read_judgements(path: Path, rollouts: Path) -> tuple[dict[tuple[str, int], float | None], str]:
    """The judge's verdict by (question_id, sample), and which judge it was.

    Raises UserError if its answers were those of other rollouts.
    """
    table = storage.read(path, JUDGEMENTS)
    check_source(path, "rollouts", rollouts)
    verdicts = {(row["question_id"], row["sample"]): row["mbe"] for row in table.to_pylist()}
    return verdicts, (table.schema.metadata or {}).get(b"model", b"").decode()


def check_source(path: Path, name: str, source: Path) -> None:
    """Raise UserError if a table's footer says that it was made of another file `name` than `source`."""
    if storage.footer(path, name) not in ("", storage.sha256(source)):
        raise UserError(f"{path}: made of other {name} than {source}; give those, or make it again")


def check_complete(rows: schema.Rows, questions: schema.Rows, settings: Mapping[str, Any]) -> None:
    """Raise UserError unless `rows` hold every question and sample that section `rollout` asks for."""
    pool = schema.of_benchmarks(questions, settings["benchmarks"], "rollout.benchmarks")
    count = min(settings["questions"] or len(pool), len(pool))
    samples = Counter(row["question_id"] for row in rows if row["turn"] == 0)
    if len(samples) != count:
        raise UserError(f"rollouts: {len(samples)} questions, {count} were asked for; roll out again")
    for question_id, number in samples.items():
        if number != settings["samples"]:
            raise UserError(
                f"rollouts: question {question_id!r} has {number} samples, {settings['samples']} were asked "
                "for; roll out again"
            )


def summary(rows: list[dict[str, Any]], params: sections.Evaluate) -> dict[str, Any]:
    """Number of questions and every metric's interval; a metric nobody has is null."""
    result: dict[str, Any] = {"n": len(rows)}
    for name in METRICS:
        values = [row[name] for row in rows if row[name] is not None]
        result[name] = interval(values, params.bootstrap, params.seed) if values else None
    return result


def split_by(rows: list[dict[str, Any]], name: str, params: sections.Evaluate) -> dict[str, Any]:
    """Summaries by the values of one column."""
    values = sorted({row[name] for row in rows})
    return {value: summary([row for row in rows if row[name] == value], params) for value in values}


def by_type(rows: list[dict[str, Any]], params: sections.Evaluate) -> dict[str, Any]:
    """Summaries by type, which of several benchmarks are called `BENCHMARK: TYPE`."""
    if len({row["benchmark"] for row in rows}) > 1:
        rows = [{**row, "type": f"{row['benchmark']}: {row['type']}".removesuffix(": ")} for row in rows]
    return split_by(rows, "type", params)


def by_hops(rows: list[dict[str, Any]], params: sections.Evaluate) -> dict[str, Any]:
    """Summaries by the number of hops, `1`, `2`, …; questions of which it is unknown are left out."""
    return split_by([{**row, "hops": str(row["hops"])} for row in rows if row["hops"]], "hops", params)


def mapping(option: str, text: str, *names: str) -> dict[str, Any]:
    """The JSON object of an option; UserError if it is none or lacks one of the names."""
    value = parse_json(text, option)
    if not isinstance(value, dict) or set(names) - value.keys():
        raise UserError(f"{option}: expected a JSON object{' with ' if names else ''}{', '.join(names)}")
    return value


def selection(path: Path) -> dict[str, Any]:
    """Which iteration's policy is evaluated and by what it was chosen, from a best policy's manifest."""
    manifest = storage.read_json(path)
    if "selected" not in manifest:
        raise UserError(f"{path}: nobody chose this policy; give the policy.json that `igpo best` wrote")
    return {"iteration": manifest["selected"]["iteration"], "selection": manifest["selected"]}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--judgements", type=Path, metavar="FILE", help="of a judge model, for mbe")
    parser.add_argument("--coverage", type=Path, metavar="FILE", help="splits scores by what the index holds")
    parser.add_argument("--selected", type=Path, metavar="FILE", help="policy.json of a run's best policy")
    parser.add_argument(
        "--asked", metavar="JSON", help="section rollout: no question or sample of it may be missing"
    )
    parser.add_argument("--provenance", default="{}", metavar="JSON", help="arm, seed, iteration … to record")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: sections.Evaluate) -> str:
    """Compute and write the metrics."""
    table = storage.read(args.rollouts, schema.ROLLOUTS)
    rows = table.to_pylist()
    if not rows:
        raise UserError(f"{args.rollouts}: no rows")
    questions = storage.read(args.questions, schema.QUESTIONS).to_pylist()
    check_source(args.rollouts, "questions", args.questions)
    if args.asked:
        check_complete(rows, questions, mapping("--asked", args.asked, "benchmarks", "questions", "samples"))
    uncovered_ids = set(read_coverage(args.coverage)["uncovered"]) if args.coverage else None
    by_id = {question["question_id"]: question for question in questions}
    judgements, judge = read_judgements(args.judgements, args.rollouts) if args.judgements else (None, None)
    question_rows = question_metrics(rows, by_id, params.format_penalty, uncovered_ids, judgements)
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    metrics = {
        "benchmarks": split_by(question_rows, "benchmark", params),
        "types": by_type(question_rows, params),
        "hops": by_hops(question_rows, params),
        "overall": summary(question_rows, params),
        "provenance": {
            **mapping("--provenance", args.provenance),
            **(selection(args.selected) if args.selected else {}),
            **{name: meta.get(name) for name in ("policy", "retriever", "decoding", "protocol", "questions")},
            **({"judge": judge} if judge else {}),
        },
    }
    if uncovered_ids is not None:
        coverage_rows = [
            {**row, "covered": "covered" if row["covered"] else "uncovered"} for row in question_rows
        ]
        metrics["coverage"] = split_by(coverage_rows, "covered", params)
    by_question = args.out.with_name("questions.parquet")
    storage.write(question_rows, PER_QUESTION, by_question, ("question_id",))
    metrics["provenance"]["by_question"] = storage.sha256(by_question)
    storage.write_json(metrics, args.out)
    f1 = metrics["overall"]["f1"]
    return f"{len(question_rows)} questions, F1 {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]"


main = stage.command(sections.Evaluate, arguments, run, __doc__)

if __name__ == "__main__":
    main()
