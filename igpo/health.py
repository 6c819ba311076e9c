"""Health of an iteration: `rollouts, scores, advantages, policy, questions, start -> health.json`.

These fall before F1 does: searches that ignore the question's depth or repeat themselves, groups without
spread and so without gradient, an entropy that collapses, text that degenerates. One number
per name; one that can't be had is null: no question with known supporting passages, no turn of that depth.
`warnings` says in sentences what has collapsed since the run's first iteration
(`igpo.training.warning_signs`).
"""

import argparse
import itertools
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.credit.answer_metrics import normalise
from igpo.credit.methods import NO_SPREAD
from igpo.experiment import schema
from igpo.experiment.schema import Rows, joined
from igpo.training.warning_signs import UPDATE, warnings
from pipeline import sections, stage, storage
from pipeline.errors import UserError

Health = dict[str, float | None]
REPEATED = re.compile(r"(\S)\1{3,}")  # four or more of one character, as in "!!!!"


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    numbers = list(values)
    return statistics.fmean(numbers) if numbers else None


def searching(listed: Sequence[Rows], questions: Mapping[str, Mapping[str, Any]]) -> Health:
    """How the policy searches, means over trajectories; opening a page is no search, as in `evaluate`.

    `searches`: queries.
    `adaptivity`: searches on questions of several hops minus those on questions of one hop.
    `duplicate_queries`: share of a trajectory's queries that it had asked before.
    `hit_overlap`: share of the hits of its later turns that an earlier turn had shown.
    `gold_recall_t`: share of the supporting passages shown up to turn t, or to an earlier end.
    """
    searches: dict[bool, list[int]] = {True: [], False: []}
    asked, duplicates, overlaps, recalls = [], [], [], []
    for rows in listed:
        question = questions[rows[0]["question_id"]]
        searched = [row for row in rows if row["tool"] == "web_search"]
        queries = [" ".join(query.lower().split()) for row in searched for query in row["queries"]]
        asked.append(len(queries))
        if question["hops"] > 0:
            searches[question["hops"] > 1].append(len(queries))
        if queries:
            duplicates.append(1 - len(set(queries)) / len(queries))
        overlaps += _overlap(rows)
        if question["supporting_ids"]:
            recalls.append(_recall_by_turn(rows, set(question["supporting_ids"])))
    several, one = mean(searches[True]), mean(searches[False])
    depth = max((len(recall) for recall in recalls), default=0)
    return {
        "searches": mean(asked),
        "adaptivity": None if several is None or one is None else several - one,
        "duplicate_queries": mean(duplicates),
        "hit_overlap": mean(overlaps),
        **{f"gold_recall_{t + 1}": mean(r[min(t, len(r) - 1)] for r in recalls) for t in range(depth)},
    }


def _overlap(rows: Rows) -> list[float]:
    """The share of hits seen before, as a list of one; of none if only one turn has hits."""
    turns = [row["hit_ids"] for row in rows if row["hit_ids"]]
    later = [(hit, turn) for turn, hits in enumerate(turns) if turn for hit in hits]
    seen = [any(hit in earlier for earlier in turns[:turn]) for hit, turn in later]
    return [sum(seen) / len(seen)] if seen else []


def _recall_by_turn(rows: Rows, supporting: set[str]) -> list[float]:
    """Share of `supporting` shown up to each of turns 1…T; what a prompt shows counts from turn 1 on."""
    shown: set[str] = set()
    recalls = []
    for row in rows:
        shown |= set(row["hit_ids"]) & supporting
        recalls.append(len(shown) / len(supporting))
    return recalls[1:]


def gains(rows: Rows) -> list[float]:
    """Information gain s_t - s_{t-1} of turns 1…T-1, whatever the arm's step reward is."""
    return [after - before for before, after in itertools.pairwise(row["gold_logprob"] for row in rows[:-1])]


def information(scores: Sequence[Rows]) -> Health:
    """Information gain in all and by depth (mean, spread, share above 0), the answer's log-probability.

    `gold_logprob_start` and `_end` are the means of s_0 and s_{T-1} per gold token; their difference is the
    reduction of the gold answer's entropy.
    """
    gains_of = [gains(rows) for rows in scores]
    result: Health = {
        "info_gain": mean(itertools.chain.from_iterable(gains_of)),
        "gold_logprob_start": mean(rows[0]["gold_logprob"] for rows in scores),
        "gold_logprob_end": mean(rows[-2]["gold_logprob"] for rows in scores),
    }
    for turn in range(max(map(len, gains_of))):
        values = [by_turn[turn] for by_turn in gains_of if turn < len(by_turn)]
        result[f"info_gain_{turn + 1}"] = mean(values)
        result[f"info_gain_std_{turn + 1}"] = statistics.pstdev(values)
        result[f"info_gain_positive_{turn + 1}"] = mean(value > 0 for value in values)
    return result


def evidence(listed: Sequence[Rows], questions: Mapping[str, Mapping[str, Any]]) -> Health:
    """Information gain by what a search turn showed: its mean, the number of such turns, the share above 0.

    `info_gain_evidence`: of turns that showed a supporting passage which no earlier turn had shown;
    `info_gain_answer`: of those among them in whose text an answer stands; `info_gain_no_evidence`: of the
    other search turns. All are null if no question's supporting passages are known.
    """
    gains_by_kind: dict[str, list[float]] = {"evidence": [], "answer": [], "no_evidence": []}
    any_supporting = False
    for rows in listed:
        question = questions[rows[0]["question_id"]]
        supporting, shown = set(question["supporting_ids"]), set(rows[0]["hit_ids"])
        any_supporting = any_supporting or bool(supporting)
        for row, gain in zip(rows[1:-1], gains(rows), strict=True):
            new = (supporting & set(row["hit_ids"])) - shown
            shown |= new
            if supporting and row["tool"] == "web_search":
                gains_by_kind["evidence" if new else "no_evidence"].append(gain)
                if new and _holds(row["observation"], question["answers"]):
                    gains_by_kind["answer"].append(gain)
    result: Health = {}
    for name, values in gains_by_kind.items():
        result[f"info_gain_{name}"] = mean(values)
        result[f"info_gain_{name}_n"] = len(values) if any_supporting else None
        result[f"info_gain_{name}_positive"] = mean(value > 0 for value in values)
    return result


def _holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the words of an answer stand in a text, next to one another."""
    return any(f" {normalise(answer)} " in f" {normalise(text)} " for answer in answers)


def spread(listed: Sequence[Rows]) -> Health:
    """Shares of groups without spread.

    `flat_outcome`, `flat_info_gain`: of outcomes, of information gains; `flat_both`: of either;
    `flat_advantage`: every advantage is 0, whatever the arm makes of the rewards.
    """
    flat: dict[str, list[bool]] = {"outcome": [], "info_gain": [], "both": [], "advantage": []}
    for _, members in itertools.groupby(listed, key=lambda rows: rows[0]["question_id"]):
        group = list(members)
        flat["outcome"].append(_flat([rows[-1]["outcome"] for rows in group]))
        flat["info_gain"].append(_flat(list(itertools.chain.from_iterable(map(gains, group)))))
        flat["both"].append(flat["outcome"][-1] and flat["info_gain"][-1])
        flat["advantage"].append(all(row["advantage"] == 0 for rows in group for row in rows[1:]))
    return {f"flat_{name}": mean(values) for name, values in flat.items()}


def _flat(values: Sequence[float]) -> bool:
    return len(values) < 2 or statistics.pvariance(values) <= NO_SPREAD


def writing(listed: Sequence[Rows]) -> Health:
    """What the policy writes.

    `well_formed`: share of trajectories without a format penalty. `entropy`: -log-probability per sampled
    token, which estimates the policy's entropy at temperature 1. `repeated_characters`: share of characters
    in runs of four or more. `invalid_turns`: share of turns that are malformed, cut off or failed, or call a
    tool without an argument. `update_tokens`: number of the sampled tokens whose turn has an advantage other
    than 0, from which an update learns (where `train.drop_equal_groups` leaves no group out);
    `credited_tokens`: their share.
    """
    turns = [row for rows in listed for row in rows[1:]]
    logprobs = [value for row in turns for value in row["policy_logprobs"]]
    characters = sum(len(row["text"]) for row in turns)
    repeated = sum(len(run.group()) for row in turns for run in REPEATED.finditer(row["text"]))
    credited = sum(len(row["policy_ids"]) for row in turns if row["advantage"] != 0)
    sampled = sum(len(row["policy_ids"]) for row in turns)
    return {
        "well_formed": mean(rows[-1]["format_ok"] for rows in listed),
        "entropy": None if not logprobs else -statistics.fmean(logprobs),
        "repeated_characters": repeated / characters if characters else None,
        "invalid_turns": mean(_invalid(row) for row in turns),
        "update_tokens": credited,
        "credited_tokens": credited / sampled if sampled else None,
    }


def _invalid(row: Mapping[str, Any]) -> bool:
    failed = (row["stop"] or "answered").partition(":")[0] not in ("answered", "turn_limit")
    calls = row["stop"] is None or row["tool"] is not None
    return failed or (calls and not row["queries"])


def health(rollouts: Rows, scores: Rows, advantages: Rows, questions: Rows) -> Health:
    """All of the above, from sorted rows of one iteration. Raises UserError if the tables don't fit."""
    by_id = {row["question_id"]: row for row in questions}
    if missing := sorted({row["question_id"] for row in rollouts} - set(by_id)):
        raise UserError(f"the questions file lacks {missing[0]!r}, which the rollouts hold")
    by_trajectory = joined(rollouts, scores=scores, advantages=advantages)
    return {
        **searching(by_trajectory, by_id),
        **information(by_trajectory),
        **evidence(by_trajectory, by_id),
        **spread(by_trajectory),
        **writing(by_trajectory),
    }


def since_start(found: Health, start: Mapping[str, float | None]) -> Health:
    """`searches_of_start`: searches per trajectory over those of the run's first iteration."""
    now, first = found["searches"], start["searches"]
    return {"searches_of_start": None if now is None or not first else now / first}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    for name in ("rollouts", "scores", "advantages", "questions"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="FILE",
        help="policy.json that the iteration's update wrote",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="health.json of the run's first iteration; default: this is it",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: sections.Health) -> str:
    """Compute and write the numbers and warnings; UserError for a collapse where `on_collapse` is "stop"."""
    expected = {
        "rollouts": schema.ROLLOUTS,
        "scores": schema.SCORES,
        "advantages": schema.ADVANTAGES,
        "questions": schema.QUESTIONS,
    }
    tables = {
        name: storage.read(getattr(args, name), columns).to_pylist() for name, columns in expected.items()
    }
    if not tables["rollouts"]:
        raise UserError(f"{args.rollouts}: no rows")
    numbers = health(**tables)
    start = storage.read_json(args.start) if args.start else numbers
    metrics = storage.read_json(args.policy)["metrics"]
    # JSON knows no infinity
    update = {name: metrics[name] if math.isfinite(metrics.get(name, math.nan)) else None for name in UPDATE}
    sentences = warnings(numbers, start, metrics, params)
    storage.write_json({**numbers, **since_start(numbers, start), **update, "warnings": sentences}, args.out)
    if sentences and params.on_collapse == "stop":
        raise UserError(f"{args.out.parent}: {'; '.join(sentences)} (health.on_collapse is stop)")
    for sentence in sentences:
        print(f"warning: {args.out.parent}: {sentence}", file=sys.stderr)
    summary = (
        f"{numbers['searches']:.2f} searches per trajectory, {numbers['well_formed']:.0%} well-formed, "
        f"{numbers['flat_advantage']:.0%} of the groups without advantage, "
        f"entropy {numbers['entropy'] or 0:.3f}"
    )
    return f"{summary}, {len(sentences)} warnings" if sentences else summary


main = stage.command(sections.Health, arguments, run, __doc__)

if __name__ == "__main__":
    main()
