"""Evaluation: `rollouts, questions -> metrics.json` (and a table of questions beside it).

Every number is a mean over questions with a bootstrap 95 % interval, so that a question with several samples
counts once.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from igpo import reward, schema
from igpo.schema import JUDGEMENTS, trajectories
from retrieval import stage, tables
from retrieval.coverage import read_coverage
from retrieval.errors import UserError
from retrieval.params import parse_json

Values = Sequence[float] | Sequence[Sequence[float]] | np.ndarray  # by question, or by seed and question
ANSWER_METRICS = {
    "f1": reward.f1,  # the paper's
    "em": reward.exact_match,
    "f1_squad": reward.squad_f1,
    "em_squad": reward.squad_exact_match,
}
FAILURES = ("format_error", "token_limit", "turn_limit", "error")  # how a trajectory ends without an answer
METRICS = (
    *ANSWER_METRICS,  # a trajectory without an answer counts 0
    *(f"{name}_format" for name in ANSWER_METRICS),  # it counts the format penalty
    "answer_rate",
    "format_failure",  # ended by a malformed turn, the token limit or an error
    *FAILURES,
    "turns",
    "searches",  # queries run
    "gold_recall",  # share of the supporting passages that were shown; null where they are unknown
    "mbe",  # share that a judge model finds right; null without one, and without its verdict
)
PER_QUESTION = pa.schema(
    [("question_id", pa.string()), ("benchmark", pa.string()), ("type", pa.string()), ("hops", pa.int8())]
    + [("covered", pa.bool_())]
    + [(name, pa.float32()) for name in METRICS]
)


def trajectory_metrics(
    rows: list[dict[str, Any]], question: Mapping[str, Any], penalty: float
) -> dict[str, Any]:
    """The metrics of one trajectory."""
    last = rows[-1]
    answer, stop = last["answer"], last["stop"].partition(":")[0]
    values = {name: metric(answer, question["answers"]) for name, metric in ANSWER_METRICS.items()}
    shown = {hit for row in rows for hit in row["hit_ids"]}
    supporting = set(question["supporting_ids"])
    return {
        **values,
        **{f"{name}_format": penalty if answer is None else value for name, value in values.items()},
        "answer_rate": float(answer is not None),
        "format_failure": float(stop not in ("answered", "turn_limit")),
        **{name: float(stop == name) for name in FAILURES},
        "turns": float(last["turn"]),
        "searches": float(sum(len(row["queries"]) for row in rows if row["tool"] == "web_search")),
        "gold_recall": len(shown & supporting) / len(supporting) if supporting else None,
    }


def question_metrics(
    rows: list[dict[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
    penalty: float,
    uncovered: set[str] | None,
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
        covered = None if uncovered is None else question_id not in uncovered
        known = {name: question[name] for name in ("benchmark", "type", "hops")}
        result.append({"question_id": question_id, **known, "covered": covered, **means})
    return result


def _judgement(
    row: Mapping[str, Any], judgements: Mapping[tuple[str, int], float | None] | None
) -> float | None:
    key = (row["question_id"], row["sample"])
    if judgements is not None and key not in judgements:
        raise UserError(f"the judgements lack trajectory {key}, which the rollouts hold; judge again")
    return None if judgements is None else judgements[key]


def read_judgements(path: Path) -> tuple[dict[tuple[str, int], float | None], str]:
    """The judge's verdict by (question_id, sample), and which judge it was."""
    table = tables.read(path, JUDGEMENTS)
    verdicts = {(row["question_id"], row["sample"]): row["mbe"] for row in table.to_pylist()}
    return verdicts, (table.schema.metadata or {}).get(b"model", b"").decode()


def check_complete(rows: schema.Rows, questions: schema.Rows, asked: Mapping[str, Any]) -> None:
    """Raise UserError unless `rows` hold every question and sample that section `rollout` asks for."""
    pool = schema.of_benchmarks(questions, asked["benchmarks"], "rollout.benchmarks")
    wanted = min(asked["questions"] or len(pool), len(pool))
    samples = Counter(row["question_id"] for row in rows if row["turn"] == 0)
    if len(samples) != wanted:
        raise UserError(f"rollouts: {len(samples)} questions, {wanted} were asked for; roll out again")
    for question_id, number in samples.items():
        if number != asked["samples"]:
            raise UserError(
                f"rollouts: question {question_id!r} has {number} samples, {asked['samples']} were asked for;"
                " roll out again"
            )


def bootstrap_means(values: Values, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) means over questions drawn with replacement, as many as there are.

    Of values (seeds, questions) seeds are drawn with replacement as well, for all questions of a resample.
    """
    data = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, questions = data.shape
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, questions, (resamples, questions))
    if seeds > 1:
        times = generator.multinomial(seeds, [1 / seeds] * seeds, resamples)
        data = times @ data / seeds  # (resamples, questions): means over the seeds drawn
    return np.take_along_axis(data, draws, 1).mean(1)


def interval(values: Values, resamples: int, seed: int) -> dict[str, float]:
    """Mean with the 2.5 and 97.5 percentiles of bootstrap means over the questions, and seeds if several."""
    low, high = np.percentile(bootstrap_means(values, resamples, seed), [2.5, 97.5])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def paired_difference(values: Values, baseline: Values, resamples: int, seed: int) -> dict[str, float]:
    """Mean of values - baseline, by question or (seed, question), with its 95 % interval and a p-like share.

    `p` is twice the share of bootstrap means on the other side of zero, 1 at most: small where the sign
    of the difference doesn't hang on which questions were asked, or on the seeds. One of the two may have a
    single seed, which is then compared with each of the other's.
    """
    differences = np.atleast_2d(values) - np.atleast_2d(baseline)
    means = bootstrap_means(differences, resamples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    p = min(1.0, 2 * float(min((means <= 0).mean(), (means >= 0).mean())))
    return {"mean": float(np.mean(differences)), "low": float(low), "high": float(high), "p": p}


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


def by_hops(rows: list[dict[str, Any]], params: SimpleNamespace) -> dict[str, Any]:
    """Summaries by the number of hops, `1`, `2`, …; questions of which it is unknown are left out."""
    return split_by([{**row, "hops": str(row["hops"])} for row in rows if row["hops"]], "hops", params)


def mapping(option: str, text: str, *names: str) -> dict[str, Any]:
    """The JSON object of an option; UserError where it is none or lacks one of the names."""
    value = parse_json(text, option)
    if not isinstance(value, dict) or set(names) - value.keys():
        raise UserError(f"{option}: expected a JSON object{' with ' if names else ''}{', '.join(names)}")
    return value


def selection(path: Path) -> dict[str, Any]:
    """Which iteration's policy is evaluated and by what it was chosen, from a best policy's manifest."""
    manifest = tables.read_json(path)
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


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Compute and write the metrics."""
    table = tables.read(args.rollouts, schema.ROLLOUTS)
    rows = table.to_pylist()
    if not rows:
        raise UserError(f"{args.rollouts}: no rows")
    listed = tables.read(args.questions, schema.QUESTIONS).to_pylist()
    if args.asked:
        check_complete(rows, listed, mapping("--asked", args.asked, "benchmarks", "questions", "samples"))
    uncovered = set(read_coverage(args.coverage)["uncovered"]) if args.coverage else None
    by_id = {question["question_id"]: question for question in listed}
    judgements, judge = read_judgements(args.judgements) if args.judgements else (None, None)
    scored = question_metrics(rows, by_id, params.format_penalty, uncovered, judgements)
    meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    metrics = {
        "benchmarks": split_by(scored, "benchmark", params),
        "types": split_by(scored, "type", params),
        "hops": by_hops(scored, params),
        "overall": summary(scored, params),
        "provenance": {
            **mapping("--provenance", args.provenance),
            **(selection(args.selected) if args.selected else {}),
            **{name: meta.get(name) for name in ("policy", "retriever", "decoding", "protocol", "questions")},
            **({"judge": judge} if judge else {}),
        },
    }
    if uncovered is not None:
        known = [{**row, "covered": "covered" if row["covered"] else "uncovered"} for row in scored]
        metrics["coverage"] = split_by(known, "covered", params)
    by_question = args.out.with_name("questions.parquet")
    tables.write(scored, PER_QUESTION, by_question, ("question_id",))
    metrics["provenance"]["by_question"] = tables.sha256(by_question)
    tables.write_json(metrics, args.out)
    f1 = metrics["overall"]["f1"]
    return f"{len(scored)} questions, F1 {f1['mean']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}]"


main = stage.command("evaluate", arguments, run, __doc__)

if __name__ == "__main__":
    main()
