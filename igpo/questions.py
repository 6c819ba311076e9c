"""A corpus, or benchmarks' question files -> train.parquet, dev.parquet, test.parquet (`QUESTIONS`).

`--source vitalqa` derives VitalQA from the corpus. `--source FILE …` takes parquet, JSON lines or a JSON
list, plain or compressed, in the form of IGPO, Search-R1, verl, FlashRAG, SearchAgentReview, HotpotQA,
2WikiMultihopQA, MuSiQue, PopQA or NQ-open, and folders of such files; docs/inputs.md says how odd fields are
read. `{split}` in a name stands for train, dev and test. Without it, a file in our own columns keeps its
splits, and all rows of any other file are test questions: what such a file calls its split is that of the
data set it was taken from. A question of test is taken out of dev and train, one of dev out of train.

`--corpus` turns supporting passages that a file names by title (HotpotQA, 2Wiki), or by title and text
(MuSiQue, PopQA), into ids. A title alone counts where only one passage has it; with any passage not found,
all are unknown.
"""

import argparse
import codecs
import io
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

from igpo import reward, supporting, vitalqa
from igpo.fields import Row, missing, objects, part, plain, texts, whole, written
from igpo.schema import QUESTIONS, QUESTIONS_KEY
from retrieval import forms, tables
from retrieval.errors import UserError
from retrieval.stage import command
from retrieval.text import single_spaces

log = logging.getLogger("igpo")
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
# Search-R1's instruction up to the question; it shows one answer, and the question follows that.
SEARCH_R1 = re.compile(r"\s*(?:Answer the given question\..*?</answer>\.?\s*)?Question:", re.DOTALL)
# Another instruction: a sentence or line that ends before its question begins.
INSTRUCTION = re.compile(r"(?:[.!?:>]\s|\n)\s*Question:")


def read_rows(path: Path) -> list[Row]:
    """The rows of a parquet file, or of a JSON list or JSON lines, plain or compressed, of any name."""
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        with forms.opened(path) as stream:
            data = stream.read().removeprefix(codecs.BOM_UTF8)
        if data.lstrip().startswith(b"["):
            rows = json.loads(data)
        else:
            rows = [row for _, row in forms.lines(io.BytesIO(data))]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a questions file, or vitalqa") from None
    except (pa.ArrowInvalid, *forms.UNREADABLE, ValueError, RecursionError) as error:
        raise UserError(f"{path}: neither parquet, nor JSON lines, nor a JSON list: {error}") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: row {number}: expected an object with question and answers, found {row!r:.60}"
            )
    return rows


def find_answers(row: Mapping[str, Any]) -> list[str]:
    """Every accepted answer of a row, the main one first; empty if it has none."""
    found = next(filter(None, (texts(row.get(key)) for key in ANSWER_KEYS)), [])
    if not found:
        truth = part(row, "reward_model", dict).get("ground_truth")
        truth = written(truth) if isinstance(truth, str) else truth
        truth = truth.get("target") if isinstance(truth, dict) else truth
        found = texts(truth.split(ANSWER_SPLIT) if isinstance(truth, str) else truth)
    return list(dict.fromkeys([*found, *texts(row.get("answer_aliases"))]))


def find_question(row: Mapping[str, Any]) -> str:
    """The bare question: `question`, `extra_info.question`, or what `prompt`'s last user message asks."""
    question = part(row, "question", str) or part(part(row, "extra_info", dict), "question", str)
    if not question:
        prompt = row.get("prompt")
        prompt = written(prompt) if isinstance(prompt, str) else prompt
        told = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else objects(row, "prompt")
        said = [part(message, "content", str) for message in told if message.get("role") == "user"]
        question = asked(said[-1]) if said else ""
    return single_spaces(question)


def asked(message: str) -> str:
    """What a user message asks: all of it, or what follows Search-R1's instruction.

    ValueError for another instruction: where its question begins would be a guess.
    """
    found = SEARCH_R1.match(message)
    if found is None and INSTRUCTION.search(message):
        raise ValueError(f"`prompt` holds an instruction of another form, {message!r:.60}; add `question`")
    return message[found.end() :] if found else message


def find_hops(row: Mapping[str, Any], supports: int) -> int:
    """Passages that an answer needs: stated, in MuSiQue's id, or `supports`, those named; 0 if unknown."""
    stated = whole(row, "hops")
    if stated is not None:
        return stated
    named = re.match(r"(\d)hop", plain(row.get("id")))
    return int(named[1]) if named else supports


def find_id(row: Mapping[str, Any], number: int) -> str:
    """`id`, `_id` or `extra_info.index`, else the row's number."""
    known = (row.get("id"), row.get("_id"), part(row, "extra_info", dict).get("index"))
    return next(filter(None, map(plain, known)), str(number))


def find_benchmark(row: Mapping[str, Any], path: Path) -> str:
    """The benchmark that a row names, else its file: a known name that this begins with, or all of it."""
    named = plain(row.get("data_source")) or plain(row.get("dataset"))
    name = (named or forms.plain_path(path).stem).removeprefix("searchR1_").lower()
    joined = name.replace("-", "_")
    known = [joined] if named else [other for other in BENCHMARKS if re.match(rf"{other}(?![a-z])", joined)]
    return BENCHMARKS.get(max(known, key=len, default=""), name)


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
    known: Row = {"supporting_ids": [], "hops": 0, "type": ""}
    known |= {name: value for name, value in row.items() if not missing(value)}
    known |= {name: texts(known.get(name)) for name in ("answers", "supporting_ids")}
    for name in QUESTIONS.names:
        if not known.get(name) and name not in ("supporting_ids", "hops", "type"):
            raise ValueError(f"no {name}; add it, or make the file with `igpo questions`")
    if known["split"] not in SPLITS:
        raise ValueError(f"split {known['split']!r}; expected one of {', '.join(SPLITS)}")
    return {**{name: known[name] for name in QUESTIONS.names}, "supports": []}


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

    Raises UserError naming file, row and remedy where a row has no question or no answer, or is malformed.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: no rows; a questions file needs at least one")
    own = any({"question_id", "benchmark", "split"} <= row.keys() for row in rows)
    loaded = []
    for number, row in enumerate(rows):
        try:
            if is_answerable(row):
                loaded.append(check_types(check_own(row) if own else normalise(row, number, path)))
        except ValueError as error:
            raise UserError(f"{path}: row {number}: {error}") from None
    if unanswerable := len(rows) - len(loaded):
        log.warning("%s: %d questions that are not answerable are left out", path, unanswerable)
    return loaded if own else distinct(loaded)


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
    """The question files in a folder; a file itself; none if there is neither."""
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        found = [file for file in inside if forms.plain_path(file).suffix in SUFFIXES]
        if others := [file.name for file in inside if file not in found]:
            log.warning("%s: left out, no question files by their names: %s", path, ", ".join(others))
        return found
    return [path] if path.is_file() else []


def derive(corpus: Path, params: SimpleNamespace) -> list[Row]:
    """VitalQA from a corpus; UserError where no rule matches."""
    rows = vitalqa.build(
        tables.read(corpus, tables.CORPUS).to_pylist(),
        seed=params.seed,
        passage_chars=params.passage_chars,
        headline_types=params.headline_types,
        dev_share=params.dev_share,
        test_share=params.test_share,
    )
    if not rows:
        raise UserError(f"{corpus}: no rule matches; VitalQA is for `retrieval corpus --source vital`")
    return rows


def make(
    sources: Sequence[str], corpus: Path | None, params: SimpleNamespace
) -> tuple[list[Row], list[Path]]:
    """The questions of the chosen sources, and the files that they come from."""
    if sources == ["vitalqa"]:
        if corpus is None:
            raise UserError("--source vitalqa derives questions from a corpus: give --corpus corpus.parquet")
        return derive(corpus, params), [corpus]
    files = source_files(sources)
    loaded = [{**row, "split": split or row["split"]} for split, path in files for row in load(path)]
    looked_up = [corpus] if corpus and any(row["supports"] for row in loaded) else []
    return distinct(supporting.resolve(loaded, corpus)), [path for _, path in files] + looked_up


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Write one table per split; a split without questions is an empty table."""
    if params.dev_share + params.test_share >= 1:
        raise UserError("questions: dev_share and test_share leave nothing to train on: lower one")
    given = args.source or params.source
    sources = [given] if isinstance(given, str) else given
    made, files = make(sources, args.corpus, params)
    rows = disjoint(made)
    meta = {
        "source": " ".join(Path(source).name for source in sources),
        "source_sha256": " ".join(map(tables.sha256, files)),
    }
    if args.corpus in files:  # their supporting passages are ids of it
        meta["corpus_sha256"] = tables.footer(args.corpus, "corpus_sha256")
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        tables.write(chosen, QUESTIONS, args.out / f"{split}.parquet", QUESTIONS_KEY, meta)
    counts = Counter((row["benchmark"], row["split"]) for row in rows)
    gone = Counter(row["split"] for row in made) - Counter(row["split"] for row in rows)
    for split, number in gone.items():
        log.warning("%d questions of %s stand in a later split: taken out", number, split)
    summary = [f"{name} {split} {n}" for (name, split), n in sorted(counts.items())]
    summary += [f"{n} taken out of {split}" for split, n in gone.items()]
    known = sum(bool(row["supporting_ids"]) for row in rows)
    return ", ".join([*summary, f"{known} of {len(rows)} with their supporting passages"])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Files that the stage reads and writes."""
    parser.add_argument(
        "--source",
        nargs="+",
        metavar="SOURCE",
        help="vitalqa, or question files and folders of them; with {split} in its name, one for each; "
        "default: params.yaml",
    )
    parser.add_argument("--corpus", type=Path, help="corpus.parquet: VitalQA's source, ids for other files")
    parser.add_argument("--out", type=Path, required=True, help="folder for train, dev and test.parquet")


main = command("questions", arguments, run, __doc__)

if __name__ == "__main__":
    main()
