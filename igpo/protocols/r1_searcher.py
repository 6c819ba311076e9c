"""R1-Searcher's form: queries within one long thought, then the answer; a plain prompt, no chat template.

The prompt opens `<think>`, as its checkpoints from base models expect. The policy stops at `<|end_of_query|>`
and goes on after the documents, still thinking; `</think>` and `<answer>…</answer>` end it. These marks are
plain text, not control tokens. The structure of the prompt is the published one, its wording ours: give the
published text in `rollout.instructions`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from igpo.protocols.protocol import Protocol, Turn, first_action, passage_text

if TYPE_CHECKING:
    from retrieval.indexes.hits import Hit

INSTRUCTIONS = """\
The User asks a question and the Assistant solves it. The Assistant first reasons and then gives the final \
answer: <think> reasoning </think>

<answer> final answer </answer>
While it reasons, the Assistant may search for what it isn't sure of with <|begin_of_query|> keywords \
<|end_of_query|>, one fact a query. The search system returns what it found between <|begin_of_documents|> \
and <|end_of_documents|>.

User:{question}
Assistant: <think>"""
ACTION = re.compile(
    r"<\|begin_of_query\|>(?P<query>.*?)<\|end_of_query\|>|</think>\s*<answer>(?P<answer>.*?)</answer>",
    re.DOTALL,
)


def parse(text: str) -> Turn:
    """The first complete query, or answer after the thought."""
    return first_action(ACTION, text, "neither a complete query nor </think> with a complete <answer>")


def passages(queries: Sequence[str], hits: Sequence[Sequence[Hit]], chars: int | None) -> str:
    """The hits of the one query, numbered: `(1)…`, one a line."""
    return "".join(
        f"({number}){passage_text(hit.title, hit.text, chars)}\n" for number, hit in enumerate(hits[0], 1)
    )


PROTOCOLS = {
    "r1_searcher": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold=" Now there's enough information to answer </think>\n\n<answer> {gold} </answer>",
        observation="\n\n<|begin_of_documents|>\n{observation}<|end_of_documents|>\n\n",
        stops=("<|end_of_query|>", "</answer>"),
        chat=False,
        passages=passages,
    )
}
