"""A raw row of a corpus -> a passage: id, title, text."""

import hashlib
import json
from typing import Any

from pipeline.characters import single_spaces

CONTROLS = "".join(map(chr, range(0x21)))  # Java's trim takes them away
Passage = tuple[str, str, str]  # id, title, text


def split_contents(contents: str) -> tuple[str, str]:
    """Title (first line, outer quotes stripped) and text of a `contents` field; no line end: no title."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.rstrip("\r")
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text


def titled(contents: str, heading: str) -> tuple[str, str]:
    """Title and text of `contents` beside a `title`, which may be empty or be its first line too."""
    title, text = split_contents(contents)
    if heading and single_spaces(heading) != single_spaces(title):
        return heading, contents
    return title, text


def body(row: dict[str, Any]) -> str:
    """The text of a row without `contents`; ValueError if it has none."""
    if isinstance(row.get("text"), str):
        return row["text"]
    if isinstance(row.get("extract"), str):
        raw = row.get("description")
        description = single_spaces(raw) if isinstance(raw, str) else ""
        return (f"{description}. " if description else "") + single_spaces(row["extract"])
    if isinstance(row.get("paragraph_text"), str):
        return row["paragraph_text"]
    sentences = row.get("sentences")
    if isinstance(sentences, list) and all(isinstance(sentence, str) for sentence in sentences):
        has_spaces = any(sentence[:1].isspace() for sentence in sentences[1:])
        return ("" if has_spaces else " ").join(sentences)
    raise ValueError("no text: expected contents, text, extract, paragraph_text or sentences")


def is_empty(title: str, text: str) -> bool:
    """Whether a passage has white space only, or control characters, which Lucene leaves out."""
    return not (title + text).strip() or not (title + text).strip(CONTROLS)


def passage(row: Any) -> tuple[str | None, str, str]:
    """Id (None if missing), title and text of a raw row; ValueError says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError(f"not an object but {type(row).__name__}")
    heading: Any = row.get("title") or ""
    contents: Any = row.get("contents")
    if not isinstance(heading, str):
        raise ValueError(f"title is {type(heading).__name__}, expected text")
    title, text = titled(contents, heading) if isinstance(contents, str) else (heading, body(row))
    title = single_spaces(title)
    if is_empty(title, text):
        raise ValueError("empty passage")
    name = row.get("id") if row.get("id") is not None else row.get("_id")
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool)):
        raise ValueError(f"id is {type(name).__name__}, expected text or a whole number")
    return (None if name is None or name == "" else str(name)), title, text


class Fingerprint:
    """SHA-256 over rows, independent of how a file stores them."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, row: Passage) -> None:
        """Take in one row; UnicodeEncodeError if it has half a surrogate pair."""
        self._sha256.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        return self._sha256.hexdigest()
