"""The articles that VitalQA's questions are about, and a question's draft."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from igpo.data.vitalqa_rules import NEEDS_THE


class Draft(NamedTuple):
    """A question before its split; articles are given as row numbers of the corpus."""

    type: str
    ask: str
    answer: str
    at: int  # the article that states the answer
    support: tuple[int, ...]  # in the order of the hops
    touches: tuple[int, ...] = ()  # further articles that belong in the same split


class Articles:
    """The corpus cut into title, description and lead, and how to speak of an article."""

    def __init__(self, rows: Iterable[Mapping[str, str]], passage_chars: int):
        self.rows = list(rows)
        self.title = [row["title"] for row in self.rows]
        self.head = [f"{row['title']}: {row['text']}"[:passage_chars] for row in self.rows]
        parts = [re.split(r"(?<![ (.][A-Za-z])(?<!St)\. ", row["text"], maxsplit=1) for row in self.rows]
        self.description = [part[0] for part in parts]
        self.lead = [part[-1] for part in parts]
        self.words = [" " + re.sub(r"[^\w'’–-]+", " ", lead) + " " for lead in self.lead]
        self.number = {title: i for i, title in enumerate(self.title)}
        bare = Counter(re.sub(r"(?: \(|, ).*$", "", title).casefold() for title in self.title)
        # A title that opens a longer one (Napoleon, Napoleon III) may mean either.
        starts = {t[: m.start()] for t in self.title for m in re.finditer(" ", t)}
        self.clear = ["(" not in t and bare[t.casefold()] == 1 and t not in starts for t in self.title]

    def name(self, i: int) -> str:
        """The title as it reads inside a sentence: with "the" and in lower case if the lead has it so."""
        title = self.title[i]
        lower = title[0].lower() + title[1:]
        if title.startswith("The ") or self.description[i].startswith("Chemical element"):
            return lower
        words = self.words[i]
        plurals = (f" {lower}s ", f" {lower}es ")
        opens = words.startswith(tuple(f" {title}{ending} " for ending in ("s", "es")))
        common = title[1:] == title[1:].lower() and (f" {lower}" in words or opens)
        wording = lower if common else title
        opening = words[: len(title) + 90].replace(" The ", " the ")
        before, the, after = opening.partition(f" the {title} ")
        has_the = bool(the) and not before.endswith("officially") and not re.match("[A-Z][a-z]", after)
        phrases = (f" a {lower} ", f" an {lower} ", f" the {lower} ", *plurals)
        is_counted = bool(common) and any(form in words.casefold() for form in phrases)
        needs_the = has_the or is_counted or re.search(NEEDS_THE, title)
        return f"the {wording}" if needs_the else wording

    def many(self, i: int) -> bool:
        """Whether the title is a plural: "The Beatles were …", "the Kunlun Mountains"."""
        title = self.title[i]
        continuation = self.words[i].removeprefix(" The").removeprefix(" " + title.removeprefix("The "))
        return title.endswith(("Mountains", "Islands")) or continuation.startswith((" are ", " were "))

    def means(self, i: int, subject: str | None) -> bool:
        """Whether the subject of a sentence in the lead of article `i` is the article's own."""
        plain = re.sub(r"^(?:The|An?) ", "", subject or "It").casefold()
        title = self.title[i].casefold()
        nouns = self.description[i].casefold().split()  # "The company was founded …" under "American company"
        return plain in {"it", "they", title, title.removeprefix("the ")} or plain in nouns

    def years(self, pattern: str, i: int) -> set[str]:
        """The years that `pattern` finds in the lead."""
        return set(re.findall(pattern, self.lead[i])) if pattern else set()
