"""Rows of any published form of a question file -> rows of `QUESTIONS`."""

import codecs
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from igpo.data import supporting
from igpo.data.fields import Row, missing, objects, part, plain, texts, whole, written
from igpo.experiment.schema import QUESTIONS, SPLITS
from pipeline.characters import UNSEEN, single_spaces
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.sources import compressed, forms

# Benchmarks by the names that files give them -> by the names of the paper's tables.
BENCHMARKS = {name: name for name in ("nq", "tq", "hotpotqa", "2wiki", "musique", "bamboogle", "popqa")} | {
    "nq_open": "nq",
    "natural_questions": "nq",
    "naturalquestions": "nq",
    "triviaqa": "tq",
    "trivia_qa": "tq",
    "hotpot": "hotpotqa",
    "hotpot_qa": "hotpotqa",
    "2wikimultihop": "2wiki",
    "2wikimultihopqa": "2wiki",
}
SPLIT_NAME = re.compile(r"(?:train|dev|test|val|valid|validation)(?![a-z])", re.IGNORECASE)
ANSWER_SPLIT = "<|answer_split|>"
ANSWER_KEYS = ("golden_answers", "answers", "answer", "possible_answers")
# Search-R1's instruction up to the question; it shows one answer, and the question follows that.
SEARCH_R1 = re.compile(r"\s*(?:Answer the given question\..*?</answer>\.?\s*)?Question:", re.DOTALL)
# Another instruction: a sentence or line that ends before its question begins.
INSTRUCTION = re.compile(r"(?:[.!?:>]\s|\n)\s*[*#_]*(?:user |input )?question[*_]*\s*[:：]", re.IGNORECASE)
# What no question holds: tags that an instruction asks for, a chat template's marks, a label that waits.
PROMPTED = re.compile(r"</?(?:think|answer|search|question|information|tool_call)>|<\||\banswer:\s*\Z", re.I)


def read_rows(path: Path) -> list[Row]:
    """The rows of a parquet file, or of a JSON list or JSON lines, plain or compressed, of any name."""
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        with compressed.opened(path) as stream:
            data = stream.read().removeprefix(codecs.BOM_UTF8)
        if data.lstrip().startswith(b"["):
            rows = json.loads(data)
        else:
            rows = [row for _, row in forms.lines(io.BytesIO(data))]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a questions file, or vitalqa") from None
    except (pa.ArrowInvalid, *compressed.UNREADABLE, ValueError, RecursionError) as error:
        raise UserError(f"{path}: neither parquet, nor JSON lines, nor a JSON list: {error}") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: row {number}: expected an object with question and answers, found {row!r:.60}"
            )
    return rows


def find_answers(row: Mapping[str, Any]) -> list[str]:
    """Every accepted answer of a row, the main one first; empty if it has none."""
    answers = next(filter(None, (texts(row.get(key)) for key in ANSWER_KEYS)), [])
    if not answers:
        truth = part(row, "reward_model", dict).get("ground_truth")
        truth = written(truth) if isinstance(truth, str) else truth
        truth = truth.get("target") if isinstance(truth, dict) else truth
        answers = texts(truth.split(ANSWER_SPLIT) if isinstance(truth, str) else truth)
    answers = [
        answer.translate(UNSEEN).strip()
        for text in [*answers, *texts(row.get("answer_aliases"))]
        for answer in text.split(ANSWER_SPLIT)
    ]
    return list(dict.fromkeys(filter(None, answers)))


def find_question(row: Mapping[str, Any]) -> str:
    """The bare question: `question`, `extra_info.question`, or what `prompt`'s last user message asks."""
    question = part(row, "question", str) or part(part(row, "extra_info", dict), "question", str)
    if not question:
        prompt = row.get("prompt")
        prompt = written(prompt) if isinstance(prompt, str) else prompt
        messages = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else objects(row, "prompt")
        )
        contents = [part(message, "content", str) for message in messages if message.get("role") == "user"]
        question = asked(contents[-1]) if contents else ""
    return single_spaces(question.translate(UNSEEN))


def asked(message: str) -> str:
    """What a user message asks: all of it, or what follows Search-R1's instruction.

    ValueError for another instruction: where its question begins would be a guess.
    """
    match = SEARCH_R1.match(message)
    question = message[match.end() :] if match else message
    if PROMPTED.search(question) or (match is None and INSTRUCTION.search(message)):
        raise ValueError(f"`prompt` holds an instruction of another form, {message!r:.60}; add `question`")
    return question


def find_hops(row: Mapping[str, Any], supports: int) -> int:
    """Passages that an answer needs: stated, in MuSiQue's id, or `supports`, those named; 0 if unknown."""
    hops = whole(row, "hops")
    if hops is not None:
        return hops
    match = re.match(r"(\d)hop", plain(row.get("id")))
    return int(match[1]) if match else supports


def find_id(row: Mapping[str, Any], number: int) -> str:
    """`id`, `_id` or `extra_info.index`, else the row's number."""
    candidates = (row.get("id"), row.get("_id"), part(row, "extra_info", dict).get("index"))
    return next(filter(None, map(plain, candidates)), str(number))


def published(name: str) -> str:
    """The table's name of the longest published name that this begins with; "" without one."""
    slug = name.lower().replace("-", "_")
    names = [other for other in BENCHMARKS if re.match(rf"{other}(?![a-z])", slug)]
    return BENCHMARKS.get(max(names, key=len, default=""), "")


def find_benchmark(row: Mapping[str, Any], path: Path) -> str:
    """The benchmark that a row names, else its file: a known name that this begins with, or all of it.

    `nq/test.jsonl`, a file that is called by its split, is in the folder's benchmark, if that is known.
    """
    if source := plain(row.get("data_source")) or plain(row.get("dataset")):
        name = source.removeprefix("searchR1_").lower()
        return BENCHMARKS.get(name.replace("-", "_"), name)
    stem = compressed.plain_path(path).stem
    folders = [folder.name for folder in path.parents[:2]] if SPLIT_NAME.match(stem) else []
    return next(filter(None, map(published, [stem, *folders])), stem.removeprefix("searchR1_").lower())


def normalise(row: Mapping[str, Any], number: int, path: Path) -> Row:
    """One row of any accepted form as a row of `QUESTIONS`, split "test", and its `supports` (title, text).

    ValueError if it has no question, no answer, or a field of a wrong kind.
    """
    benchmark, question, answers = find_benchmark(row, path), find_question(row), find_answers(row)
    if not question:
        raise ValueError("no question; add `question`, or `prompt` with a user message")
    if not answers:
        raise ValueError(
            "no answers; add `golden_answers` (a list of texts), `answer`, or `reward_model.ground_truth`"
        )
    identity = find_id(row, number)
    ids = texts(row.get("supporting_ids")) or texts(row.get("positive_doc_ids"))
    supports = supporting.find_supports(row)
    return {
        "question_id": identity if identity.startswith(f"{benchmark}_") else f"{benchmark}_{identity}",
        "benchmark": benchmark,
        "question": question,
        "answers": answers,
        "supporting_ids": ids,
        "hops": find_hops(row, len(supports)),
        "split": "test",
        "type": next(filter(None, (plain(row.get(name)) for name in ("question_type", "type", "prop"))), ""),
        "supports": [] if ids else supports,
    }


def is_answerable(row: Mapping[str, Any]) -> bool:
    """False for MuSiQue-Full's twins without an answer; ValueError if `answerable` is no truth value."""
    return missing(row.get("answerable")) or part(row, "answerable", bool)


def check_own(row: Row) -> Row:
    """A row that has our columns already; `type`, `hops` and `supporting_ids` may be missing.

    ValueError if another is, or the split is none of ours.
    """
    columns: Row = {"supporting_ids": [], "hops": 0, "type": ""}
    columns |= {name: value for name, value in row.items() if not missing(value)}
    columns |= {name: texts(columns.get(name)) for name in ("answers", "supporting_ids")}
    columns["hops"] = whole(columns, "hops")
    for name in QUESTIONS.names:
        if not columns.get(name) and name not in ("supporting_ids", "hops", "type"):
            raise ValueError(f"no {name}; add it, or make the file with `igpo questions`")
    if columns["split"] not in SPLITS:
        raise ValueError(f"split {columns['split']!r}; expected one of {', '.join(SPLITS)}")
    return {**{name: columns[name] for name in QUESTIONS.names}, "supports": []}


def check_types(row: Row) -> Row:
    """The row; ValueError if a column of `QUESTIONS` can't hold its value."""
    for field in QUESTIONS:
        try:
            pa.scalar(row[field.name], field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise ValueError(f"`{field.name}` is {row[field.name]!r:.60}; expected {field.type}") from None
    return row


def load(path: Path) -> list[Row]:
    """Rows of `QUESTIONS`, and their `supports`, from a file of any form; repeated ids get row numbers.

    Raises UserError naming file, row and remedy if a row has no question or no answer, or is malformed.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: no rows; a questions file needs at least one")
    own = any({"question_id", "benchmark", "split"} <= row.keys() for row in rows)
    questions = []
    for number, row in enumerate(rows):
        try:
            if is_answerable(row):
                questions.append(check_types(check_own(row) if own else normalise(row, number, path)))
        except ValueError as error:
            raise UserError(f"{path}: row {number}: {error}") from None
    if not questions:
        raise UserError(f"{path}: none of its {len(rows)} questions is answerable")
    if unanswerable := len(rows) - len(questions):
        log.warning("%s: %d questions that are not answerable are left out", path, unanswerable)
    return questions if own else distinct(questions)


def distinct(rows: list[Row]) -> list[Row]:
    """The rows, with their number put after ids that repeat within a split."""
    times = Counter((row["split"], row["question_id"]) for row in rows)
    repeats = [times[row["split"], row["question_id"]] > 1 for row in rows]
    return [
        {**row, "question_id": f"{row['question_id']}_{number}"} if again else row
        for number, (row, again) in enumerate(zip(rows, repeats, strict=True))
    ]
