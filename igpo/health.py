"""Health of an iteration: `rollouts, scores, advantages, policy, questions, start, dev -> health.json`.

These fall before F1 does: searches that ignore the question's depth or repeat themselves, groups without
spread and so without gradient, an entropy that collapses, text that degenerates. One number
per name; one that can't be had is null: no question with known supporting passages, no turn of that depth.
`warnings` says in sentences what has collapsed since the start (`igpo.training.warning_signs`).
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

import numpy as np
import pandas as pd

from igpo.credit.methods import NO_SPREAD
from igpo.experiment import schema
from igpo.experiment.schema import Rows, joined
from igpo.training.best import metrics_of
from igpo.training.warning_signs import UPDATE, warnings
from pipeline import sections, stage, storage
from pipeline.characters import words
from pipeline.errors import UserError

Health = dict[str, float | None]
TRAJECTORY = ["question_id", "sample"]
REPEATS = re.compile(r"(\S)\1{3,}")  # four or more of one character, as in "!!!!"


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    numbers = list(values)
    return statistics.fmean(numbers) if numbers else None


def turn_table(trajectories: Sequence[Rows], questions: Rows) -> pd.DataFrame:
    """Turns 0…T of the trajectories, in order, each with what is known of its question, and further columns.

    `gain`: information gain s_t - s_{t-1} of turns 1…T-1, whatever the arm's step reward is.
    `supporting`: number of supporting passages, 0 if they are unknown.
    `new`: how many of them the turn shows and no earlier one did.
    """
    columns = ["question_id", "hops", "answers", "supporting_ids"]
    turns = pd.DataFrame(list(itertools.chain.from_iterable(trajectories)))
    turns = turns.merge(pd.DataFrame(questions, columns=columns), "left", "question_id")
    turns["gain"] = turns.groupby(TRAJECTORY)["gold_logprob"].diff()
    turns["supporting"] = [len(set(passages)) for passages in turns["supporting_ids"]]
    hits = hit_table(turns[turns["observation_ids"].map(len) > 0])  # the last turn's are not shown
    supports = [
        hit in passages for hit, passages in zip(hits["hit_ids"], hits["supporting_ids"], strict=True)
    ]
    new = hits[np.array(supports, bool)].drop_duplicates([*TRAJECTORY, "hit_ids"])
    turns["new"] = new.index.value_counts().reindex(turns.index, fill_value=0)
    return turns


def hit_table(turns: pd.DataFrame) -> pd.DataFrame:
    """One row per hit that a turn shows, by the turn's place; `first` is the turn that showed it first."""
    columns = [*TRAJECTORY, "turn", "hit_ids", "supporting_ids"]
    hits = turns[columns].explode("hit_ids").dropna(subset="hit_ids")
    return hits.assign(first=hits.groupby([*TRAJECTORY, "hit_ids"])["turn"].transform("min"))


def searching(turns: pd.DataFrame) -> Health:
    """How the policy searches, means over trajectories; opening a page is no search, as in `evaluate`.

    `searches`: queries.
    `adaptivity`: searches on questions of several hops minus those on questions of one hop.
    `duplicate_queries`: share of a trajectory's queries that it had asked before.
    `hit_overlap`: share of the hits of its later turns that an earlier turn had shown.
    """
    hops = turns.groupby(TRAJECTORY)["hops"].first()
    queries = turns[turns["tool"] == "web_search"].explode("queries").dropna(subset="queries")
    plain = [" ".join(query.lower().split()) for query in queries["queries"]]
    own = queries.assign(plain=plain).groupby(TRAJECTORY)["plain"]
    searches = own.size().reindex(hops.index, fill_value=0)
    several, one = mean(searches[hops > 1]), mean(searches[hops == 1])
    hits = hit_table(turns)
    later = hits[hits["turn"] > hits.groupby(TRAJECTORY)["turn"].transform("min")]
    again = later.assign(again=later["first"] < later["turn"]).groupby(TRAJECTORY)["again"]
    return {
        "searches": mean(searches),
        "adaptivity": None if several is None or one is None else several - one,
        "duplicate_queries": mean(1 - own.nunique() / own.size()),
        "hit_overlap": mean(again.mean()),
    }


def recall(turns: pd.DataFrame) -> Health:
    """`gold_recall_t`: share of the supporting passages shown up to turn t, or to an earlier end.

    What a prompt shows counts from turn 1 on.
    """
    turns = turns[turns["supporting"] > 0]
    shares = turns.groupby(TRAJECTORY)["new"].cumsum() / turns["supporting"]
    by_turn = turns.assign(share=shares).pivot(index=TRAJECTORY, columns="turn", values="share").ffill(axis=1)
    return {f"gold_recall_{turn}": mean(values) for turn, values in by_turn.items() if turn}


def information(turns: pd.DataFrame) -> Health:
    """Information gain in all and by depth (mean, spread, share above 0), the answer's log-probability.

    `gold_logprob_start` and `_end` are the means of s_0 and s_{T-1} per gold token; their difference is the
    reduction of the gold answer's entropy.
    """
    gold = turns.groupby(TRAJECTORY)["gold_logprob"]
    result: Health = {
        "info_gain": mean(turns["gain"].dropna()),
        "gold_logprob_start": mean(gold.first()),
        "gold_logprob_end": mean(gold.last()),
    }
    for turn, values in turns.dropna(subset="gain").groupby("turn")["gain"]:
        result[f"info_gain_{turn}"] = mean(values)
        result[f"info_gain_std_{turn}"] = statistics.pstdev(values.tolist())
        result[f"info_gain_positive_{turn}"] = mean(values > 0)
    return result


def evidence(turns: pd.DataFrame) -> Health:
    """Information gain by what a search turn showed: its mean, the number of such turns, the share above 0.

    `info_gain_evidence`: of turns that showed a supporting passage which no earlier turn had shown;
    `info_gain_answer`: of those among them in whose text an answer stands; `info_gain_no_evidence`: of the
    other search turns. All are null if no question's supporting passages are known.
    """
    turns = turns[turns["supporting"] > 0]
    searches = turns[(turns["tool"] == "web_search") & turns["gain"].notna()]
    finds, others = searches[searches["new"] > 0], searches[searches["new"] == 0]
    answers = [_holds(*pair) for pair in zip(finds["observation"], finds["answers"], strict=True)]
    kinds = {"evidence": finds, "answer": finds[np.array(answers, bool)], "no_evidence": others}
    result: Health = {}
    for name, rows in kinds.items():
        result[f"info_gain_{name}"] = mean(rows["gain"])
        result[f"info_gain_{name}_n"] = len(rows) if len(turns) else None
        result[f"info_gain_{name}_positive"] = mean(rows["gain"] > 0)
    return result


def _holds(text: str, answers: Sequence[str]) -> bool:
    """Whether the words of an answer stand in a text, next to one another; dashes part words."""
    shown = f" {' '.join(words(text))} "
    return any(f" {' '.join(answer)} " in shown for answer in map(words, answers) if answer)


def spread(turns: pd.DataFrame) -> Health:
    """Shares of groups without spread.

    `flat_outcome`, `flat_info_gain`: of outcomes, of information gains; `flat_both`: of either;
    `flat_advantage`: every advantage is 0, whatever the arm makes of the rewards.
    """
    rows = []
    for _, group in turns.groupby("question_id"):
        outcome, gain = _flat(group["outcome"]), _flat(group["gain"])
        advantage = (group.loc[group["turn"] > 0, "advantage"] == 0).all()
        rows.append((outcome, gain, outcome and gain, bool(advantage)))
    shares = map(mean, zip(*rows, strict=True))
    return dict(zip(("flat_outcome", "flat_info_gain", "flat_both", "flat_advantage"), shares, strict=True))


def _flat(column: pd.Series) -> bool:
    values = column.dropna().tolist()
    return len(values) < 2 or statistics.pvariance(values) <= NO_SPREAD


def writing(turns: pd.DataFrame) -> Health:
    """What the policy writes.

    `well_formed`: share of trajectories without a format penalty. `entropy`: -log-probability per sampled
    token, which at a sampling temperature of 1 estimates the policy's entropy. `repeated_characters`: share
    of characters in runs of four or more. `invalid_turns`: share of turns that are malformed, cut off or
    failed, or call a tool without an argument. `update_tokens`: number of the sampled tokens whose turn has
    an advantage other than 0, from which an update learns (if `train.drop_equal_groups` leaves no group
    out); `credited_tokens`: their share.
    """
    acts = turns[turns["turn"] > 0]
    logprobs = list(itertools.chain.from_iterable(acts["policy_logprobs"]))
    characters = sum(map(len, acts["text"]))
    repeats = sum(len(run.group()) for text in acts["text"] for run in REPEATS.finditer(text))
    lengths = acts["policy_ids"].map(len)
    tokens, update_tokens = int(lengths.sum()), int(lengths[acts["advantage"] != 0].sum())
    return {
        "well_formed": mean(turns.groupby(TRAJECTORY)["format_ok"].last()),
        "entropy": None if not logprobs else -statistics.fmean(logprobs),
        "repeated_characters": repeats / characters if characters else None,
        "invalid_turns": mean(map(_invalid, acts["stop"], acts["tool"], acts["queries"])),
        "update_tokens": update_tokens,
        "credited_tokens": update_tokens / tokens if tokens else None,
    }


def _invalid(stop: str | None, tool: str | None, queries: Sequence[str]) -> bool:
    failure = (stop or "answered").partition(":")[0] not in ("answered", "turn_limit")
    calls = stop is None or tool is not None
    return failure or (calls and not queries)


def health(rollouts: Rows, scores: Rows, advantages: Rows, questions: Rows) -> Health:
    """All of the above, from sorted rows of one iteration. Raises UserError if the tables don't fit."""
    missing = {row["question_id"] for row in rollouts} - {row["question_id"] for row in questions}
    if missing:
        raise UserError(f"the questions file lacks {min(missing)!r}, which the rollouts hold")
    turns = turn_table(joined(rollouts, scores=scores, advantages=advantages), questions)
    parts = (searching, recall, information, evidence, spread, writing)
    return {name: value for part in parts for name, value in part(turns).items()}


def since_start(numbers: Health, start: Mapping[str, float | None]) -> Health:
    """`searches_of_start`: searches per trajectory over those of the run's first iteration."""
    now, first = numbers["searches"], start["searches"]
    return {"searches_of_start": None if now is None or not first else now / first}


def validated(metrics: Mapping[str, Any]) -> Health:
    """`updated_well_formed`: share of trajectories that end in an answer or at their turn limit."""
    return {"updated_well_formed": 1 - metrics["overall"]["format_failure"]["mean"]}


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
    parser.add_argument(
        "--dev",
        type=Path,
        nargs=2,
        metavar=("FILE", "START"),
        help="metrics.json of the updated policy's validation, and of the warm start's",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: sections.Health) -> str:
    """Compute and write the numbers and warnings; UserError for a collapse if `on_collapse` is "stop"."""
    schemas = {
        "rollouts": schema.ROLLOUTS,
        "scores": schema.SCORES,
        "advantages": schema.ADVANTAGES,
        "questions": schema.QUESTIONS,
    }
    tables = {
        name: storage.read(getattr(args, name), columns).to_pylist() for name, columns in schemas.items()
    }
    if not tables["rollouts"]:
        raise UserError(f"{args.rollouts}: no rows")
    numbers = health(**tables)
    start = storage.read_json(args.start) if args.start else numbers
    manifest = storage.read_json(args.policy)
    metrics = manifest["metrics"]
    numbers["updated_well_formed"] = None
    if args.dev:
        numbers |= validated(metrics_of(args.dev[0], manifest, args.policy))
        start = {**start, **validated(storage.read_json(args.dev[1]))}
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
    return f"{summary}, warnings: {len(sentences)}" if sentences else summary


main = stage.command(sections.Health, arguments, run, __doc__)

if __name__ == "__main__":
    main()
