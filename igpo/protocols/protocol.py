"""What a trajectory protocol is, and its tokens: prompts, observations, the forced gold answer.

A protocol (`igpo/protocols/`, one file each) is data and pure functions: how a policy is asked, how its turns
are read, how the passages that it searched for come back to it. Only text that the policy sampled is parsed;
in questions and passages a control token's text is plain text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.indexes.hits import Hit

TOOLS = ("web_search", "open")
THINK = "<think>"
# Free text in the texts of a protocol; braces around anything else are plain characters.
FIELD = re.compile(r"\{(question|passages|observation|reasoning|query|documents)\}")


@dataclass(frozen=True)
class Turn:
    """A parsed turn: `answer` if it answers, else `tool` and `queries` if it calls, else an error.

    For `open` the one query is the page's title.
    """

    answer: str | None = None
    tool: str | None = None
    queries: list[str] = field(default_factory=list)
    error: str | None = None


def search_for(query: str) -> Turn:
    """The turn that searches for a query; without text it holds none."""
    return Turn(tool="web_search", queries=[query.strip()] if query.strip() else [])


def first_action(pattern: re.Pattern[str], text: str, error: str) -> Turn:
    """The turn of the first match, by its group `query` or `answer`; `error` if nothing matches."""
    match = pattern.search(text)
    if match is None:
        return Turn(error=error)
    if match["answer"] is not None:
        return Turn(answer=match["answer"].strip())
    return search_for(match["query"])


def passage_text(title: str, text: str, chars: int | None) -> str:
    """A passage as a policy reads it: title and text on one line, at most `chars` characters."""
    return " ".join(f"{title}: {text}".split())[:chars]


def passage_lines(queries: Sequence[str], hits: Sequence[Sequence[Hit]], chars: int | None) -> str:
    """The passages found for every query, one a line."""
    return "\n".join(passage_text(hit.title, hit.text, chars) for query_hits in hits for hit in query_hits)


@dataclass(frozen=True)
class Protocol:
    """How a policy is asked, read and answered. Texts hold free text as `{question}`, `{observation}`, …

    A protocol without `stops` ends a turn with the end-of-turn token, and a tool's answer is a message of its
    own. With `stops` the policy stops at one of these texts, and goes on in the same message after the
    tool's answer.
    """

    # The system message; with `{question}` in it, the one message of the user. With `{passages}` in it, a
    # search for the question itself comes first. `{date}` and `{open}` are filled by `protocols.prepare`.
    instructions: str
    parse: Callable[[str], Turn]  # what a policy sampled in one turn, without the end-of-turn token
    scaffold: str  # forces `{gold}` as the answer after a prompt or an observation
    observation: str = ""  # around a tool's answer; empty: nothing can be called
    opening: str = ""  # how the policy's message begins; not sampled
    stops: tuple[str, ...] = ()
    chat: bool = True  # False: `instructions` are the whole prompt, without a chat template
    cut_answers: bool = False  # whether an answer that the token limit cuts off still counts
    # What follows a malformed turn in the same message, and the policy goes on; None: such a turn is the last
    invalid: str | None = None
    date: str = "2025-01-01"  # today's (YYYY-MM-DD), for chat templates that ask
    # (queries, hits of each, characters of a passage or None) -> the observation
    passages: Callable[[Sequence[str], Sequence[Sequence[Hit]], int | None], str] = passage_lines
    open: str | None = None  # instructions for the tool `open`; None: the protocol has none
    signatures: tuple[dict[str, Any], ...] = ()  # tools for the chat template, which then has a tool role
    # Instructions to condense found `{documents}` before they are shown, and the reader of what comes of it.
    reader: str | None = None
    condensed: Callable[[str], str] = str.strip

    @property
    def searches_first(self) -> bool:
        """Whether the prompt shows what a search for the question finds."""
        return "{passages}" in self.instructions

    @property
    def searches(self) -> bool:
        """Whether a search engine is needed at all."""
        return self.searches_first or bool(self.observation)


def observation_text(
    protocol: Protocol,
    turn: Turn,
    hits: Sequence[Sequence[Hit]],
    tools: Sequence[str] = TOOLS[:1],
    chars: int | None = None,
) -> str:
    """The tool's answer to a call; `hits` holds the passages of each query or of the opened page."""
    if turn.error:
        return protocol.invalid or ""
    if turn.tool is None or turn.tool not in tools:
        return f"Unknown tool: {turn.tool}"
    if not turn.queries:
        needs = {"web_search": '"query", a list of strings', "open": '"title", a string'}
        return f"{turn.tool} needs {needs[turn.tool]}"
    nothing = f"No further passages of {turn.queries[0]}" if turn.tool == "open" else "No results"
    return protocol.passages(turn.queries, hits, chars) or nothing
