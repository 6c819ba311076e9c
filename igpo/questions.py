"""A corpus, or benchmarks' question files -> train.parquet, dev.parquet, test.parquet (`QUESTIONS`).

`--source vitalqa` derives VitalQA from the corpus. `--source FILE …` takes parquet, JSON lines or a JSON
list, plain or compressed, in the form of IGPO, Search-R1, verl, FlashRAG, SearchAgentReview, HotpotQA,
2WikiMultihopQA, MuSiQue, PopQA or NQ-open, and folders of such files; docs/inputs.md says how odd fields are
read. `{split}` in a name stands for train, dev and test. Without it, a file in our own columns keeps its
splits, and all rows of any other file are test questions: what such a file calls its split is that of the
data set it was taken from. A question of test is taken out of dev and train, one of dev out of train.

`--corpus` turns supporting passages that a file names by title (HotpotQA, 2Wiki), or by title and text
(MuSiQue, PopQA), into ids. A title alone counts if only one passage has it; with any passage not found,
all are unknown.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from igpo.credit import answer_metrics
from igpo.data import supporting, vitalqa
from igpo.data.fields import Row
from igpo.data.question_forms import distinct, load
from igpo.experiment.schema import QUESTIONS, QUESTIONS_KEY, SPLITS
from pipeline import sections, storage
from pipeline.errors import UserError
from pipeline.log import log
from pipeline.stage import command
from retrieval.sources import compressed

SUFFIXES = (".parquet", ".json", ".jsonl")  # of the files that count in a folder


def disjoint(rows: list[Row]) -> list[Row]:
    """The rows whose question stands in no later split: test stays whole, dev lacks test's, train both's.

    Two questions are equal if their words are: case, punctuation and white space don't count. An id that a
    later split has too gets the name of its own split after it.
    """
    result: list[Row] = []
    later: set[str] = set()
    for split in reversed(SPLITS):
        pairs = [(answer_metrics.normalise(row["question"]), row) for row in rows if row["split"] == split]
        ids = {row["question_id"] for row in result}
        for words, row in pairs:
            if words not in later:
                name = row["question_id"]
                result.append({**row, "question_id": f"{name}_{split}" if name in ids else name})
        later |= {words for words, _ in pairs}
    return result


def source_files(sources: Sequence[str]) -> list[tuple[str, Path]]:
    """(split, file) for every file behind the sources; the split is "" if a file says it itself.

    Raises UserError for a source that is neither a file nor a folder with some, whatever the split.
    """
    result = []
    for source in sources:
        candidates = [(split, Path(source.replace("{split}", split))) for split in SPLITS]
        candidates = candidates if "{split}" in source else [("", Path(source))]
        files = [(split, file) for split, path in candidates for file in files_of(path)]
        if not files:
            paths = ", ".join(str(path) for _, path in candidates)
            raise UserError(
                f"questions.source: none of {paths} is a file, or a folder with {', '.join(SUFFIXES)} files"
            )
        for split, path in candidates:
            if split not in dict(files):
                log.warning("%s: no such file: no questions of %s", path, split)
        result += files
    return result


def files_of(path: Path) -> list[Path]:
    """The question files in a folder; a file itself; none if there is neither."""
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        files = [file for file in inside if file.is_file() and compressed.plain_path(file).suffix in SUFFIXES]
        if others := [file.name for file in inside if file not in files]:
            log.warning("%s: left out, no question files by their names: %s", path, ", ".join(others))
        return files
    return [path] if path.is_file() else []


def derive(corpus: Path, params: sections.Questions) -> list[Row]:
    """VitalQA from a corpus; UserError if no rule matches."""
    rows = vitalqa.build(
        storage.read(corpus, storage.CORPUS).to_pylist(),
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
    sources: Sequence[str], corpus: Path | None, params: sections.Questions
) -> tuple[list[Row], list[Path]]:
    """The questions of the chosen sources, and the files that they come from."""
    if sources == ["vitalqa"]:
        if corpus is None:
            raise UserError("--source vitalqa derives questions from a corpus: give --corpus corpus.parquet")
        return derive(corpus, params), [corpus]
    files = source_files(sources)
    rows = [{**row, "split": split or row["split"]} for split, path in files for row in load(path)]
    looked_up = [corpus] if corpus and any(row["supports"] for row in rows) else []
    return distinct(supporting.resolve(rows, corpus)), [path for _, path in files] + looked_up


def run(args: argparse.Namespace, params: sections.Questions) -> str:
    """Write one table per split; a split without questions is an empty table."""
    if params.dev_share + params.test_share >= 1:
        raise UserError("questions: dev_share and test_share leave nothing to train on: lower one")
    setting = args.source or params.source
    sources = [setting] if isinstance(setting, str) else setting
    questions, files = make(sources, args.corpus, params)
    rows = disjoint(questions)
    meta = {
        "source": " ".join(Path(source).name for source in sources),
        "source_sha256": " ".join(map(storage.sha256, files)),
    }
    if args.corpus in files:  # their supporting passages are ids of it
        meta["corpus_sha256"] = storage.footer(args.corpus, "corpus_sha256")
    for split in SPLITS:
        split_rows = [row for row in rows if row["split"] == split]
        storage.write(split_rows, QUESTIONS, args.out / f"{split}.parquet", QUESTIONS_KEY, meta)
    counts = Counter((row["benchmark"], row["split"]) for row in rows)
    removals = Counter(row["split"] for row in questions) - Counter(row["split"] for row in rows)
    for split, number in removals.items():
        log.warning("%d questions of %s stand in a later split: taken out", number, split)
    summary = [f"{name} {split} {n}" for (name, split), n in sorted(counts.items())]
    summary += [f"{n} taken out of {split}" for split, n in removals.items()]
    with_passages = sum(bool(row["supporting_ids"]) for row in rows)
    return ", ".join([*summary, f"{with_passages} of {len(rows)} with their supporting passages"])


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


main = command(sections.Questions, arguments, run, __doc__)

if __name__ == "__main__":
    main()
