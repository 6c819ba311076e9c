"""A corpus, or a benchmark's question file -> train.parquet, dev.parquet, test.parquet (`QUESTIONS`).

`--source vitalqa` derives VitalQA from the corpus. `--source FILE` takes parquet, JSON lines or a JSON list
in the form of IGPO, Search-R1, verl, FlashRAG, SearchAgentReview, HotpotQA, 2WikiMultihopQA, MuSiQue, PopQA
or NQ-open. `{split}` in a file's name stands for train, dev and test. Without it, a file in our own columns
keeps its splits, and all rows of any other file are test questions: what such a file calls its split is that
of the data set it was taken from.
"""

import argparse
import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from igpo import vitalqa
from igpo.schema import QUESTIONS, QUESTIONS_KEY
from retrieval import tables
from retrieval.stage import UserError, command

Row = dict[str, Any]
SPLITS = ("train", "dev", "test")
ANSWER_SPLIT = "<|answer_split|>"
ANSWER_KEYS = ("golden_answers", "answers", "answer", "possible_answers")


def read_rows(path: Path) -> list[Row]:
    """The rows of a parquet file, a JSON list, or JSON lines (whatever the file is called)."""
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        text = path.read_text(encoding="utf-8-sig")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a questions file, or vitalqa") from None
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise UserError(f"{path}: neither parquet, nor JSON lines, nor a JSON list: {error}") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: row {number}: expected an object with question and answers, found {row!r:.60}"
            )
    return rows


def texts(value: Any) -> list[str]:
    """Answers in any form, as a list: text, number, list, or text that holds a JSON list (PopQA)."""
    if value is None or isinstance(value, bool):
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        value = [value]
    return [text for item in value if (text := str(item).strip())]


def find_answers(row: Mapping[str, Any]) -> list[str]:
    """Every accepted answer of a row, the main one first; empty where it has none."""
    found = next((texts(row[key]) for key in ANSWER_KEYS if texts(row.get(key))), [])
    if not found:
        truth = (row.get("reward_model") or {}).get("ground_truth")
        truth = truth.get("target") if isinstance(truth, Mapping) else truth
        found = texts(truth.split(ANSWER_SPLIT) if isinstance(truth, str) else truth)
    return list(dict.fromkeys([*found, *texts(row.get("answer_aliases"))]))


def find_question(row: Mapping[str, Any]) -> str:
    """The bare question: `question`, else the last user message without Search-R1's instruction."""
    question = row.get("question")
    if not question:
        said = [message["content"] for message in row.get("prompt") or [] if message.get("role") == "user"]
        question = said[-1].rpartition("Question:")[2] if said else ""
    return " ".join(str(question).split())


def find_supporting_ids(row: Mapping[str, Any]) -> list[str]:
    """Ids of the supporting passages where the row names them; titles and paragraphs are not ids."""
    return [str(item) for item in row.get("supporting_ids") or row.get("positive_doc_ids") or []]


def find_hops(row: Mapping[str, Any]) -> int:
    """Passages that an answer needs: stated, in MuSiQue's id, or counted; 0 where unknown."""
    named = re.match(r"(\d)hop", str(row.get("id", "")))
    if row.get("hops") is not None or named:
        return int(row["hops"]) if row.get("hops") is not None else int(named[1] if named else 0)
    facts = row.get("supporting_facts") or []
    titles = facts.get("title", []) if isinstance(facts, Mapping) else [fact[0] for fact in facts]
    support = [p for p in row.get("paragraphs") or [] if p.get("is_supporting")]
    return len(set(titles)) or len(support)


def find_id(row: Mapping[str, Any], number: int) -> str:
    """`id`, `_id` or `extra_info.index`, else the row's number."""
    known = (row.get("id"), row.get("_id"), (row.get("extra_info") or {}).get("index"))
    return str(next((value for value in known if value not in (None, "")), number))


def normalise(row: Mapping[str, Any], number: int, path: Path) -> Row:
    """One row of any accepted form as a row of `QUESTIONS`, split "test"."""
    benchmark = (
        str(row.get("data_source") or row.get("dataset") or path.stem).removeprefix("searchR1_").lower()
    )
    question, answers = find_question(row), find_answers(row)
    if not question:
        raise UserError(f"{path}: row {number}: no question; add `question`, or `prompt` with a user message")
    if not answers:
        raise UserError(
            f"{path}: row {number}: no answers; add `golden_answers` (a list of texts), `answer`, "
            f"or `reward_model.ground_truth`"
        )
    identity = find_id(row, number)
    return {
        "question_id": identity if identity.startswith(f"{benchmark}_") else f"{benchmark}_{identity}",
        "benchmark": benchmark,
        "question": question,
        "answers": answers,
        "supporting_ids": find_supporting_ids(row),
        "hops": find_hops(row),
        "split": "test",
        "type": str(row.get("question_type") or row.get("type") or row.get("prop") or ""),
    }


def load(path: Path) -> list[Row]:
    """Question rows (`QUESTIONS`) from a file of any accepted form; ids that repeat get their row's number.

    Raises UserError naming file, row and remedy where a row has no question or no answer.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: no rows; a questions file needs at least one")
    if {"question_id", "benchmark", "split"} <= rows[0].keys():
        return [check_own(row, number, path) for number, row in enumerate(rows)]
    loaded = [normalise(row, number, path) for number, row in enumerate(rows)]
    times = Counter(row["question_id"] for row in loaded)
    for number, row in enumerate(loaded):
        if times[row["question_id"]] > 1:
            row["question_id"] += f"_{number}"
    return loaded


def check_own(row: Row, number: int, path: Path) -> Row:
    """A row that has our columns already; `type` and `supporting_ids` may be missing."""
    for name in ("question_id", "question", "answers"):
        if not row.get(name):
            raise UserError(
                f"{path}: row {number}: no {name}; add it, or make the file with `igpo questions`"
            )
    if row["split"] not in SPLITS:
        raise UserError(f"{path}: row {number}: split {row['split']!r}; expected one of {', '.join(SPLITS)}")
    known = {"supporting_ids": [], "hops": 0, "type": "", **row}
    return {name: known[name] for name in QUESTIONS.names}


def source_files(source: str) -> dict[str, Path]:
    """The files behind a source by split; "" where one file holds all. UserError where there is none."""
    if "{split}" not in source:
        return {"": Path(source)}
    named = {split: Path(source.replace("{split}", split)) for split in SPLITS}
    found = {split: path for split, path in named.items() if path.is_file()}
    if not found:
        raise UserError(f"questions.source: none of {', '.join(map(str, named.values()))} exists")
    return found


def make(args: argparse.Namespace, params: SimpleNamespace) -> list[Row]:
    """The questions of the chosen source."""
    if args.source != "vitalqa":
        files = source_files(args.source).items()
        return [{**row, "split": split or row["split"]} for split, path in files for row in load(path)]
    if args.corpus is None:
        raise UserError("--source vitalqa derives questions from a corpus: give --corpus corpus.parquet")
    corpus = tables.read(args.corpus, tables.CORPUS).to_pylist()
    shares = {"dev_share": params.dev_share, "test_share": params.test_share}
    rows = vitalqa.build(
        corpus,
        seed=params.seed,
        passage_chars=params.passage_chars,
        headline_types=params.headline_types,
        **shares,
    )
    if not rows:
        raise UserError(f"{args.corpus}: no rule matches; VitalQA is for `retrieval corpus --source vital`")
    return rows


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write one table per split; a split without questions is an empty table."""
    rows = make(args, params)
    files = [args.corpus] if args.source == "vitalqa" else list(source_files(args.source).values())
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        meta = {"source": Path(args.source).name, "source_sha256": " ".join(map(tables.sha256, files))}
        tables.write(chosen, QUESTIONS, args.out / f"{split}.parquet", QUESTIONS_KEY, meta)
    counts = Counter((row["benchmark"], row["split"]) for row in rows)
    return ", ".join(f"{name} {split} {n}" for (name, split), n in sorted(counts.items()))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Files that the stage reads and writes."""
    parser.add_argument(
        "--source", required=True, help="vitalqa, or a questions file; with {split} in its name, one for each"
    )
    parser.add_argument("--corpus", type=Path, help="corpus.parquet, for vitalqa")
    parser.add_argument("--out", type=Path, required=True, help="folder for train, dev and test.parquet")


main = command("questions", arguments, run, __doc__)

if __name__ == "__main__":
    main()
