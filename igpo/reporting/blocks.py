"""What the report's template lays out: headings, tables, figures, notes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Block(NamedTuple):
    """One thing on the page; its kind says which of the others it has."""

    kind: str  # heading | note | text | figure | list | table | published
    text: str = ""
    heads: Sequence[str] = ()
    cells: Sequence[Sequence[str]] = ()
    blocks: "Sequence[Block]" = ()


def heading(text: str) -> Block:
    """A heading within a part."""
    return Block("heading", text)


def note(text: str) -> Block:
    """A paragraph in small print."""
    return Block("note", text)


def figure(svg: str) -> Block:
    """An <svg> element that this repository drew."""
    return Block("figure", svg)


def bullets(lines: Iterable[str]) -> Block:
    """A list of lines."""
    return Block("list", cells=[[line] for line in lines])


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> Block:
    """A table of texts."""
    return Block("table", heads=heads, cells=cells)


def published_box(theirs: Block, text: str) -> Block:
    """What the paper printed, told apart from ours."""
    return Block("published", blocks=[heading("Published by the paper"), theirs, note(text)])
