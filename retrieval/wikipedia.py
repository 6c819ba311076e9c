"""Wikipedia XML dump (`pages-articles.xml`, plain or compressed) -> passages, streamed, in the dump's order.

An article becomes plain text: no redirects, templates, tables, references, headings, files, or lists of
links at its end. The text is cut into passages of about 100 words, as in the passages of DPR; their ids are
`page-number`. Wikitext is parsed by mwparserfromhell on all cores.
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, BinaryIO
from xml.etree import ElementTree

from retrieval.stage import end_with

WORDS = 100
PAGES_PER_TASK = 64
# Sections that point elsewhere; the rest of an article from the first of them on is dropped.
END = {
    "bibliography",
    "citations",
    "external links",
    "footnotes",
    "further reading",
    "notes",
    "references",
    "see also",
    "sources",
}
DROPPED_TAGS = {"gallery", "math", "ref", "score", "table", "timeline"}
REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)
SWITCH = re.compile("__[A-Z]+__")  # such as __NOTOC__
# Tags that end a line or a block: their words are not one.
BLOCK_TAG = re.compile(r"</?(?:blockquote|br|center|d[dlt]|div|hr|li|ol|p|t[dhr]|ul)\b[^<>]*>", re.IGNORECASE)
DROPPED_LINKS = ("category:", "file:", "image:")
# What a dropped template leaves between brackets and before a comma.
HOLES = [
    (re.compile(r"\(\s*(?:[;,]\s*)*"), "("),
    (re.compile(r"\s*\(\s*\)"), ""),
    (re.compile(r"\s+([,.;])"), r"\1"),
]
Page = tuple[str, str, str]  # id, title, wikitext


@dataclass(frozen=True)
class Unreadable:
    """A page that the wikitext parser fails on."""

    title: str
    reason: str


Row = dict[str, str] | Unreadable


def pages(stream: BinaryIO) -> Iterator[Page]:
    """The articles of a dump, one in memory at a time; ValueError names the line that is not XML."""
    root, page = None, dict[str, str]()
    try:
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):
            root = element if root is None else root
            name = element.tag.rpartition("}")[2]
            if event == "start":
                if name == "page":
                    page = {}
                elif name == "redirect":
                    page["redirect"] = "yes"
            elif name in ("title", "ns", "id", "text"):
                page.setdefault(
                    name, element.text or ""
                )  # the first id is the page's, the next its revision's
            elif name == "page":
                text = page.get("text", "")
                if page.get("ns") == "0" and "redirect" not in page and not REDIRECT.match(text):
                    yield page["id"], page["title"], text
                root.clear()
    except ElementTree.ParseError as error:
        raise ValueError(f"line {error.position[0]}: not XML: {error}") from None
    except KeyError as error:
        raise ValueError(f"a page without {error} after page {page.get('id')}") from None


def plain(wikitext: str) -> str:
    """The running text of an article on one line."""
    import mwparserfromhell
    from mwparserfromhell.nodes import Heading

    code = mwparserfromhell.parse(BLOCK_TAG.sub(r" \g<0> ", SWITCH.sub("", wikitext)))
    kept: list[Any] = []
    for node in code.nodes:
        if not isinstance(node, Heading):
            kept.append(node)
        elif node.title.strip_code().strip().casefold() in END:
            break
    code.nodes = kept
    for tag in code.filter_tags(matches=lambda node: str(node.tag).casefold() in DROPPED_TAGS):
        tag.contents = ""
    for link in code.filter_wikilinks():
        if str(link.title).strip().casefold().startswith(DROPPED_LINKS):
            link.title = link.text = ""
    text = " ".join(code.strip_code().split())
    for pattern, replacement in HOLES:
        text = pattern.sub(replacement, text)
    return text


def cut(text: str) -> list[str]:
    """Pieces of about `WORDS` words, all of nearly the same length."""
    words = text.split()
    count = max(1, round(len(words) / WORDS)) if words else 0
    return [" ".join(words[len(words) * i // count : len(words) * (i + 1) // count]) for i in range(count)]


def articles(batch: list[Page]) -> list[Row]:
    """The passages of some pages; an Unreadable in place of a page that can't be parsed."""
    found: list[Row] = []
    for number, title, wikitext in batch:
        try:
            text = plain(wikitext)
            text.encode()
        except Exception as error:  # one page in millions: the parser's own faults come in any class
            found.append(Unreadable(title, f"{type(error).__name__}: {error}"))
            continue
        pieces = enumerate(cut(text))
        found += [{"id": f"{number}-{i}", "title": title, "text": piece} for i, piece in pieces]
    return found


def rows(stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Numbered passages and unreadable pages of a dump; at most a few hundred pages are in memory."""
    workers = len(os.sched_getaffinity(0))
    source, number = pages(stream), 0
    waiting: deque[Future[list[Row]]] = deque()
    with ProcessPoolExecutor(workers, initializer=partial(end_with, os.getpid())) as pool:
        while True:
            batch = list(islice(source, PAGES_PER_TASK))
            if batch:
                waiting.append(pool.submit(articles, batch))
            if not waiting:
                return
            if not batch or len(waiting) > 2 * workers:
                for row in waiting.popleft().result():
                    number += 1
                    yield number, row
