"""Indexes + questions -> coverage.json: what a search over this corpus can and cannot answer.

An answer is "in" a passage when its words stand in title + text one after another, without regard to case and
punctuation. Per benchmark, as shares of its questions:

    answer_in_corpus     an answer is in some passage of the corpus
    answer_at k          ... in one of the best k hits of the question itself
    gold_at k            mean share of a question's supporting passages among the best k (null: none known)
    all_gold_at k        all of its supporting passages are among the best k (null: none known)
    gold_in_index        all of its supporting passages are in the index (null: none known)
    chance_answer_at k   another question's answer is in one of the best k

A question is uncovered when no answer is in the corpus or a supporting passage is not in the index.
"""

from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import stage, storage
from pipeline.characters import words
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.indexes.hits import Hit
from retrieval.indexes.searcher import Searcher, check_corpus, open_searcher

CUTS = (1, 3, 10, 100)
QUESTIONS = pa.schema(
    [
        ("question_id", pa.string()),
        ("benchmark", pa.string()),
        ("question", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("supporting_ids", pa.list_(pa.string())),
    ]
)
BATCH = 256  # questions per search
Words = tuple[str, ...]


def rank_of(answers: Sequence[Words], passages: Sequence[str]) -> float:
    """The rank, from 1, of the first passage that has one of the answers; infinity if none has.

    `passages` are words joined and enclosed by single spaces.
    """
    needles = [f" {' '.join(answer)} " for answer in answers]
    for rank, passage in enumerate(passages, 1):
        if any(needle in passage for needle in needles):
            return rank
    return float("inf")


def present(answers: Iterable[Words], passages: Iterable[tuple[str, str, str]]) -> set[Words]:
    """Which answers stand somewhere in the corpus; one pass over it."""
    by_first: dict[str, set[Words]] = defaultdict(set)
    for answer in answers:
        by_first[answer[0]].add(answer)
    matches: set[Words] = set()
    for _, title, text in passages:
        here = words(f"{title}\n{text}")
        for at, word in enumerate(here):
            new = [answer for answer in by_first.get(word, ()) if here[at : at + len(answer)] == answer]
            matches.update(new)
            if new:
                by_first[word].difference_update(new)
    return matches


def normalised(questions: list[dict[str, Any]]) -> None:
    """Add to each question its answers' words, and those of another question of its benchmark."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for question in questions:
        answers = {words(answer) for answer in question["answers"]}
        question["words"] = sorted(answer for answer in answers if answer)
        groups[question["benchmark"]].append(question)
    for group in groups.values():
        half = len(group) // 2
        for at, question in enumerate(group):
            others = (group[(at + half + step) % len(group)] for step in range(len(group)))
            strange = (other["words"] for other in others if not set(other["words"]) & set(question["words"]))
            question["other_words"] = next(strange, [])


def measure(
    question: dict[str, Any], hits: list[Hit], searcher: Searcher, in_corpus: set[Words]
) -> dict[str, Any]:
    """One question's figures: ranks (from 1; infinity: not found) and what the corpus has."""
    passages = [f" {' '.join(words(f'{hit.title} {hit.text}'))} " for hit in hits]
    ranks = {hit.id: rank for rank, hit in enumerate(hits, 1)}
    gold = sorted(set(question["supporting_ids"] or []))
    return {
        "answer": rank_of(question["words"], passages),
        "chance": rank_of(question["other_words"], passages),
        "gold": [ranks.get(name, float("inf")) for name in gold],
        "gold_in_index": all(searcher.passages.find(name) is not None for name in gold),
        "in_corpus": any(answer in in_corpus for answer in question["words"]),
    }


def mean(values: Sequence[float]) -> float | None:
    """Mean to six digits; None of nothing."""
    return round(sum(values) / len(values), 6) if values else None


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A benchmark's shares."""
    gold_rows = [row for row in rows if row["gold"]]
    columns = {"answer_at": "answer", "chance_answer_at": "chance"}
    return {
        "n": len(rows),
        "answer_in_corpus": mean([row["in_corpus"] for row in rows]),
        "gold_in_index": mean([row["gold_in_index"] for row in gold_rows]),
        **{
            name: {str(k): mean([row[key] <= k for row in rows]) for k in CUTS}
            for name, key in columns.items()
        },
        "gold_at": {
            str(k): mean([sum(rank <= k for rank in row["gold"]) / len(row["gold"]) for row in gold_rows])
            for k in CUTS
        },
        "all_gold_at": {str(k): mean([max(row["gold"]) <= k for row in gold_rows]) for k in CUTS},
    }


def audit(searcher: Searcher, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of coverage.json for questions sorted by id."""
    normalised(questions)
    answers = {answer for question in questions for answer in question["words"]}
    in_corpus = present(answers, searcher.passages)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    uncovered_ids = []
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        hit_lists = searcher.search([question["question"] for question in part], max(CUTS))
        for question, hits in zip(part, hit_lists, strict=True):
            row = measure(question, hits, searcher, in_corpus)
            rows[question["benchmark"]].append(row)
            if not (row["in_corpus"] and row["gold_in_index"]):
                uncovered_ids.append(question["question_id"])
        log.info("coverage: %d of %d questions", start + len(part), len(questions))
    return {"benchmarks": {name: summary(rows[name]) for name in sorted(rows)}, "uncovered": uncovered_ids}


def check_questions(questions: list[dict[str, Any]], path: Path) -> None:
    """Raise UserError for a null, a question without answers, and an id that comes again."""
    ids: set[str] = set()
    for number, question in enumerate(questions, 1):
        name = question["question_id"]
        lists = [*(question["answers"] or []), *(question["supporting_ids"] or [])]
        if None in (name, question["benchmark"], question["question"], *lists):
            raise UserError(f"{path}: row {number}, question {name!r}, has a null")
        if not question["answers"]:
            raise UserError(f"{path}: question {name!r} has no answers")
        if name in ids:
            raise UserError(f"{path}: question {name!r} comes again in row {number}")
        ids.add(name)


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--index", type=Path, nargs="+", action="extend", required=True, metavar="DIR")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="questions parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="coverage.json")


def run(args: Namespace) -> str:
    """Audit one questions file."""
    questions = storage.read(args.questions, QUESTIONS).select(QUESTIONS.names).to_pylist()
    if not questions:
        raise UserError(f"{args.questions}: no questions")
    check_questions(questions, args.questions)
    questions.sort(key=lambda question: question["question_id"])
    searcher = open_searcher(args.index)
    check_corpus(searcher, args.questions)
    result = audit(searcher, questions)
    storage.write_json({**result, "index_identity": searcher.identity}, args.out)
    return f"{len(questions)} questions, {len(result['uncovered'])} uncovered"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
