"""A corpus, or benchmarks' question files -> train.parquet, dev.parquet, test.parquet (`QUESTIONS`).

`--source vitalqa` derives VitalQA from the corpus. `--source FILE …` takes parquet, JSON lines or a JSON list
in the form of IGPO, Search-R1, verl, FlashRAG, SearchAgentReview, HotpotQA, 2WikiMultihopQA, MuSiQue, PopQA
or NQ-open, and folders of such files. `{split}` in a name stands for train, dev and test. Without it, a file
in our own columns keeps its splits, and all rows of any other file are test questions: what such a file calls
its split is that of the data set it was taken from. A question of test is taken out of dev and train, one of
dev out of train.
"""

import argparse
import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from igpo import reward, vitalqa
from igpo.schema import QUESTIONS, QUESTIONS_KEY
from retrieval import tables
from retrieval.stage import UserError, command

log = logging.getLogger("igpo")
Row = dict[str, Any]
SPLITS = ("train", "dev", "test")
SUFFIXES = (".parquet", ".json", ".jsonl")  # of the files that count in a folder
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


def find_benchmark(row: Mapping[str, Any], path: Path) -> str:
    """The benchmark that a row names, else its file: a known name that this begins with, or all of it."""
    named = row.get("data_source") or row.get("dataset")
    name = str(named or path.stem).removeprefix("searchR1_").lower()
    plain = name.replace("-", "_")
    known = [plain] if named else [other for other in BENCHMARKS if re.match(rf"{other}(?![a-z])", plain)]
    return BENCHMARKS.get(max(known, key=len, default=""), name)


def normalise(row: Mapping[str, Any], number: int, path: Path) -> Row:
    """One row of any accepted form as a row of `QUESTIONS`, split "test"."""
    benchmark, question, answers = find_benchmark(row, path), find_question(row), find_answers(row)
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
    return distinct([normalise(row, number, path) for number, row in enumerate(rows)])


def distinct(rows: list[Row]) -> list[Row]:
    """The rows, with their number put after ids that repeat within a split."""
    times = Counter((row["split"], row["question_id"]) for row in rows)
    repeated = [times[row["split"], row["question_id"]] > 1 for row in rows]
    return [
        {**row, "question_id": f"{row['question_id']}_{number}"} if again else row
        for number, (row, again) in enumerate(zip(rows, repeated, strict=True))
    ]


def disjoint(rows: list[Row]) -> list[Row]:
    """The rows whose question stands in no later split: test stays whole, dev lacks test's, train both's.

    Questions are equal where their words are: case, punctuation and white space don't count.
    """
    kept: list[Row] = []
    later: set[str] = set()
    for split in reversed(SPLITS):
        asked = [(reward.normalise(row["question"]), row) for row in rows if row["split"] == split]
        kept += [row for words, row in asked if words not in later]
        later |= {words for words, _ in asked}
    return kept


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


def source_files(sources: Sequence[str]) -> list[tuple[str, Path]]:
    """(split, file) for every file behind the sources; the split is "" where a file says it itself.

    Raises UserError for a source that is neither a file nor a folder with some, whatever the split.
    """
    found = []
    for source in sources:
        named = [(split, Path(source.replace("{split}", split))) for split in SPLITS]
        named = named if "{split}" in source else [("", Path(source))]
        files = [(split, file) for split, path in named for file in files_of(path)]
        if not files:
            paths = ", ".join(str(path) for _, path in named)
            raise UserError(
                f"questions.source: none of {paths} is a file, or a folder with {', '.join(SUFFIXES)} files"
            )
        found += files
    return found


def files_of(path: Path) -> list[Path]:
    """The question files in a folder; a file itself; none where there is neither."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return [path] if path.is_file() else []


def make(args: argparse.Namespace, params: SimpleNamespace) -> list[Row]:
    """The questions of the chosen source."""
    if args.source != ["vitalqa"]:
        loaded = [(split, row) for split, path in source_files(args.source) for row in load(path)]
        return distinct([{**row, "split": split or row["split"]} for split, row in loaded])
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
    made = make(args, params)
    rows = disjoint(made)
    vital = args.source == ["vitalqa"]
    files = [args.corpus] if vital else [path for _, path in source_files(args.source)]
    meta = {
        "source": " ".join(Path(source).name for source in args.source),
        "source_sha256": " ".join(map(tables.sha256, files)),
    }
    if vital:
        meta["corpus_sha256"] = tables.footer(args.corpus, "corpus_sha256")
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        tables.write(chosen, QUESTIONS, args.out / f"{split}.parquet", QUESTIONS_KEY, meta)
    counts = Counter((row["benchmark"], row["split"]) for row in rows)
    gone = Counter(row["split"] for row in made) - Counter(row["split"] for row in rows)
    for split, number in gone.items():
        log.warning("%d questions of %s stand in a later split: taken out", number, split)
    summary = [f"{name} {split} {n}" for (name, split), n in sorted(counts.items())]
    return ", ".join([*summary, *(f"{n} taken out of {split}" for split, n in gone.items())])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Files that the stage reads and writes."""
    parser.add_argument(
        "--source",
        required=True,
        nargs="+",
        metavar="SOURCE",
        help="vitalqa, or question files and folders of them; with {split} in its name, one for each",
    )
    parser.add_argument("--corpus", type=Path, help="corpus.parquet, for vitalqa")
    parser.add_argument("--out", type=Path, required=True, help="folder for train, dev and test.parquet")


main = command("questions", arguments, run, __doc__)

if __name__ == "__main__":
    main()
