"""The trajectories that the report's browser shows: one JSON value, as gzip in base64.

    sources       where trajectories come from: kind (training, validation, evaluation), arm, seed, iteration
    questions     by id: question, answers, benchmark, type, number of supporting passages
    trajectories  source, question, sample, stop, answer, f1, outcome, found (supporting passages shown),
                  start (s_0), turns
    turns         text, tool, queries, hits (id, supports the answer?), read, ids, logprobs; gold (s_t), gain,
                  reward, advantage
    vocabulary    the text of every sampled token by id

What a table lacks is null: evaluations have no scores.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.experiment import schema
from igpo.experiment.policy import load_tokenizer
from igpo.reporting.folders import WORTH, f1, found, source, trajectories
from pipeline import storage
from pipeline.errors import UserError


def shorten(value: float | None, digits: int = 4) -> float | None:
    """A number for a reader."""
    return None if value is None else round(value, digits)


def turn_record(row: Mapping[str, Any], passages: set[str]) -> dict[str, Any]:
    """One turn."""
    return {
        "text": row["text"],
        "tool": row["tool"],
        "queries": row["queries"],
        "hits": [[name, int(name in passages)] for name in row["hit_ids"]],
        "read": row["observation"],
        "ids": row["policy_ids"],
        "logprobs": [shorten(value, 2) for value in row["policy_logprobs"]],
        **{name: shorten(row.get(column)) for name, column in WORTH.items()},
    }


def record(number: int, rows: schema.Rows, question: Mapping[str, Any]) -> dict[str, Any]:
    """One trajectory of source `number`."""
    passages, last = set(question["supporting_ids"]), rows[-1]
    return {
        "source": number,
        "question": last["question_id"],
        "sample": last["sample"],
        "stop": last["stop"],
        "answer": last["answer"],
        "f1": shorten(f1(rows, question)),
        "outcome": shorten(last.get("outcome")),
        "found": found(rows, question),
        "start": shorten(rows[0].get("gold_logprob")),
        "turns": [turn_record(row, passages) for row in rows[1:]],
    }


def read_questions(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The questions of several tables by id."""
    rows = (row for path in paths for row in storage.read(path, schema.QUESTIONS).to_pylist())
    return {row["question_id"]: row for row in rows}


def collect(
    folders: Iterable[Path], questions: Mapping[str, Mapping[str, Any]], policy: Path
) -> dict[str, Any]:
    """The browser's value. Raises UserError for a trajectory of a question that is not among `questions`."""
    sources, records = [], []
    for number, folder in enumerate(folders):
        sources.append(source(folder))
        for rows in trajectories(folder):
            name = rows[0]["question_id"]
            if name not in questions:
                raise UserError(f"{folder}/rollouts.parquet: question {name!r} is in none of the --questions")
            records.append(record(number, rows, questions[name]))
    names = {one["question"] for one in records}
    tokens = {token for one in records for turn in one["turns"] for token in turn["ids"]}
    tokenizer = load_tokenizer(policy)
    return {
        "sources": sources,
        "questions": {
            name: {key: questions[name][key] for key in ("question", "answers", "benchmark", "type")}
            | {"supporting": len(questions[name]["supporting_ids"])}
            for name in sorted(names)
        },
        "trajectories": records,
        "vocabulary": {str(token): tokenizer.decode([token]) for token in sorted(tokens)},
    }


def gains(collection: Mapping[str, Any]) -> list[tuple[list[float], float]]:
    """(information gain of every search turn, outcome) of the trajectories that were trained on.

    Those of a first iteration that several arms share are there once.
    """
    values = {}
    for one in collection["trajectories"]:
        if one["outcome"] is not None:
            source = collection["sources"][one["source"]]
            of_turns = [turn["gain"] for turn in one["turns"] if turn["gain"] is not None]
            policy = source["seed"], source["iteration"], one["start"], *of_turns
            values[one["question"], one["sample"], policy] = of_turns, one["outcome"]
    return list(values.values())


def pack(value: Any) -> str:
    """JSON as gzip in base64; equal values give equal text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()
