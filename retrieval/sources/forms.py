"""Corpus file, of any form that published corpora use -> raw rows, streamed, each with its place in the file.

JSON lines, one JSON list, one JSON object by title, tab-separated with a header, parquet, a Wikipedia XML
dump; plain or compressed (gzip, bzip2, xz, zstandard). The form is found by looking at the first bytes, not
at the name, except that a name with `.jsonl` promises lines. At most one passage and one read buffer are in
memory.

A line of JSON or of a table ends at a line feed, nowhere else. Blank lines may stand at the end of a file.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from pipeline.errors import UserError
from retrieval.sources import wikipedia
from retrieval.sources.compressed import UNREADABLE, opened

FIRST_LINE_BYTES = 1 << 20  # a longer first line is taken for one big JSON value
CHUNK_CHARS = 1 << 20
VALUE_CHARS = 1 << 26  # a JSON value that does not end within this is malformed
WHITE_SPACE = re.compile(r"\s*")
TEXT_KEYS = ("contents", "text", "extract", "paragraph_text")
# A small object with one of these holds a passage's fields, and no passages by title.
FIELD_KEYS = {"id", "_id", "title", *TEXT_KEYS}
FIELDS = 64  # an object of as many items is one of passages
Row = tuple[int, Any]  # line (or parquet row) number counted from 1, raw row


def corpus_file(path: Path) -> Path:
    """The file itself, or a BEIR folder's `corpus.jsonl`, maybe compressed; UserError if it has none."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("corpus.jsonl*"))
    if not files:
        raise UserError(f"{path}: a folder without corpus.jsonl; give a corpus file or a BEIR folder")
    return files[0]


def is_passage(value: dict[str, Any]) -> bool:
    """Tell one passage from an object of passages by title."""
    return any(isinstance(value.get(key), str) for key in TEXT_KEYS) or isinstance(value.get("id"), str | int)


def form(path: Path) -> str:
    """`parquet`, `tsv`, `xml`, `json` (one value) or `lines`; UserError for an empty file."""
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    with opened(path) as stream:
        first = stream.readline(FIRST_LINE_BYTES).removeprefix(codecs.BOM_UTF8)
        while first.isspace():
            first = stream.readline(FIRST_LINE_BYTES)
        more = bool(stream.read(1))
    if not first:
        raise UserError(f"{path}: line 1: the file is empty")
    if first.lstrip().startswith((b"<mediawiki", b"<?xml")):
        return "xml"
    if b"\t" in first and b"text" in first.replace(b'"', b"").strip().split(b"\t"):
        return "tsv"
    if ".jsonl" in path.suffixes or first.lstrip()[:1] not in (b"{", b"["):
        return "lines"
    try:
        value = json.loads(first)
    except ValueError:
        return "json"
    return "lines" if isinstance(value, dict) and (more or is_passage(value)) else "json"


def text_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file, without line ends; ValueError for a blank one before the last."""
    blank = 0
    for number, line in enumerate(stream, 1):
        if not line.strip():
            blank = blank or number
            continue
        if blank:
            raise ValueError(f"line {blank}: empty line")
        yield number, line.rstrip(b"\r\n")


def lines(stream: BinaryIO) -> Iterator[Row]:
    """Rows of JSON lines; ValueError `line N: …` if one is blank or not JSON."""
    for number, line in text_lines(stream):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: not JSON: {error}") from None


class Scanner:
    """Read JSON values one after another out of a text stream."""

    def __init__(self, stream: BinaryIO):
        self.text = io.TextIOWrapper(stream, encoding="utf-8-sig")
        self.buffer, self.at, self.line = "", 0, 1
        self.decoder = json.JSONDecoder()

    def more(self) -> bool:
        """Read another chunk; False at the end of the file."""
        chunk = self.text.read(CHUNK_CHARS)
        self.buffer, self.at = self.buffer[self.at :] + chunk, 0
        return bool(chunk)

    def move(self, to: int) -> None:
        """Go on to position `to` of the buffer, counting lines."""
        self.line += self.buffer.count("\n", self.at, to)
        self.at = to

    def peek(self) -> str:
        """The next character that is not white space; "" at the end of the file."""
        while True:
            self.move(WHITE_SPACE.match(self.buffer, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.buffer) or not self.more():
                return self.buffer[self.at : self.at + 1]

    def expect(self, chars: str) -> str:
        """Consume one of the characters `chars`; ValueError otherwise."""
        char = self.peek()
        if not char or char not in chars:
            raise ValueError(f"line {self.line}: not JSON: expected one of {chars}, found {char!r}")
        self.at += 1
        return char

    def value(self) -> Any:
        """Consume one value; ValueError if it is malformed."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
                if end < len(self.buffer) or not self.more():  # a number may go on in the next chunk
                    self.move(min(end, len(self.buffer)))
                    return value
            except json.JSONDecodeError as error:
                place = self.line + self.buffer.count("\n", self.at, error.pos)
                if len(self.buffer) - self.at > VALUE_CHARS or not self.more():
                    raise ValueError(f"line {place}: not JSON: {error.msg}") from None


def items(scanner: Scanner, opening: str) -> Iterator[tuple[int, str, Any]]:
    """(line, key, value) of all that a list or object holds, behind its opening; a list has no keys."""
    closing = {"[": "]", "{": "}"}[opening]
    separator = opening if scanner.peek() != closing else scanner.expect(closing)
    while separator != closing:
        scanner.peek()
        number, value = scanner.line, scanner.value()
        key = ""
        if opening == "{":
            scanner.expect(":")
            key, value = value, scanner.value()
        yield number, key, value
        separator = scanner.expect("," + closing)


def values(stream: BinaryIO) -> Iterator[Row]:
    """Rows of one JSON list, of one JSON object by title, or of passages one after another."""
    scanner = Scanner(stream)
    while first := scanner.peek():
        number, opening = scanner.line, scanner.expect("[{")
        content = items(scanner, opening)
        head = list(islice(content, FIELDS)) if first == "{" else []
        row = {key: value for _, key, value in head}
        if len(head) < FIELDS and any(isinstance(row.get(key), str | int | float) for key in FIELD_KEYS):
            yield number, row
            continue
        for line, key, value in chain(head, content):
            yield line, entry(key, value) if first == "{" else value
        if scanner.peek():
            raise ValueError(f"line {scanner.line}: not JSON: text after the end of the value")


def entry(title: str, value: Any) -> dict[str, Any]:
    """A row out of one item of an object by title: list of sentences, object, or text."""
    if isinstance(value, dict):
        return {"title": title, **value}
    return {"title": title, "sentences" if isinstance(value, list) else "text": value}


def unquoted(field: str) -> str:
    """A field without the quotes around it; one whose quotes do not pair is taken as it stands."""
    inside = field[1:-1]
    is_quoted = len(field) > 1 and field[0] == field[-1] == '"' and '"' not in inside.replace('""', "")
    return inside.replace('""', '"') if is_quoted else field


def fields(row: str, columns: int) -> list[str] | None:
    """The fields of a tab-separated row; None if the last one opens a quote that a later line may close.

    ValueError if they are not as many as the header's columns.
    """
    raw = row.split("\t")
    cells = [unquoted(field) for field in raw]
    if len(raw) < columns and raw[-1].startswith('"') and cells[-1] == raw[-1]:
        return None
    if len(cells) != columns and '"' in row:  # a tab within quotes
        try:
            cells = next(csv.reader([row], delimiter="\t", strict=True))
        except csv.Error as error:
            raise ValueError(f"quotes that do not pair, or a column too few: {error}") from None
    if len(cells) != columns:
        fault = "more" if len(cells) > columns else "fewer"
        raise ValueError(f"{fault} columns than the header names: {len(cells)}, not {columns}")
    return cells


def separated(stream: BinaryIO) -> Iterator[Row]:
    """Rows of a tab-separated file with a header line.

    A row is a line, and goes on to another only while it lacks columns and a quote is open: text that begins
    or ends with a quote, or holds one, takes no other row in.
    """
    csv.field_size_limit(VALUE_CHARS)
    header, row_lines, start = list[str](), list[str](), 0
    for number, line in text_lines(stream):
        row_lines.append(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        start = start or number
        row = "\n".join(row_lines)
        try:
            cells = fields(row, len(header) or row.count("\t") + 1)
        except ValueError as error:
            raise ValueError(f"line {start}: {error}") from None
        if cells is None:
            continue
        if header:
            yield number, dict(zip(header, cells, strict=True))
        elif len(set(cells)) < len(cells):
            raise ValueError(f"line {number}: two columns of one name")
        header, row_lines, start = header or cells, [], 0
    if row_lines:
        raise ValueError(f"line {start}: a quote opens and none closes, and columns are missing")


def records(path: Path) -> Iterator[Row]:
    """Rows of a parquet file, batch by batch."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        number = 0
        for batch in file.iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield number, row


READERS = {"lines": lines, "json": values, "tsv": separated, "xml": wikipedia.rows}


def rows(path: Path) -> Iterator[Row]:
    """Stream the raw rows of a corpus file.

    Raises UserError naming file and line for a file that is missing, empty, truncated or malformed.
    """
    number = 0
    try:
        kind = form(path)
        if kind == "parquet":
            yield from records(path)
            return
        with opened(path) as stream:
            for number, row in READERS[kind](stream):
                yield number, row
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise UserError(f"{path}: line {number + 1}: truncated or unreadable file: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: line {number + 1}: not UTF-8: {error.reason}") from None
    except RecursionError:
        raise UserError(f"{path}: line {number + 1}: not a passage: nested too deeply") from None
    except (ValueError, LookupError) as error:  # LookupError: an XML file's unknown encoding
        raise UserError(f"{path}: {error}") from None
