"""Search-R1's form: `<search>` and `<answer>` within one message of the policy, no system prompt.

The policy thinks between `<think>` tags that it writes itself and stops at `</search>`; what was found
follows in the same message between `<information>` tags; `<answer>…</answer>` ends it. The structure of the
one user message is the published one and it ends in the question, its wording is ours: give the published
text in `rollout.instructions`. A turn with neither tag doesn't end the trajectory: as in the released code, a
line in the policy's own voice follows it, and the policy goes on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from igpo.protocols.protocol import Protocol, Turn, first_action

if TYPE_CHECKING:
    from retrieval.indexes.hits import Hit

INSTRUCTIONS = """\
Answer the question below. Whenever you are given new information, first reason between <think> and \
</think>. If you then lack knowledge, call a search engine with <search> query </search>: it returns its \
best results between <information> and </information>. You may search as often as you like. Once you need \
nothing further, give the answer alone between <answer> and </answer>, such as <answer> Beijing </answer>. \
Question: {question}
"""
INVALID = """
My previous action is invalid. A search stands between <search> and </search>, a final answer between \
<answer> and </answer>. I try again.
"""
ACTION = re.compile(r"<search>(?P<query>.*?)</search>|<answer>(?P<answer>.*?)</answer>", re.DOTALL)


def parse(text: str) -> Turn:
    """The first complete search or answer."""
    return first_action(ACTION, text, "neither <search>…</search> nor <answer>…</answer>")


def passages(queries: Sequence[str], hits: Sequence[Sequence[Hit]], chars: int | None) -> str:
    """The hits of the one query: `Doc 1(Title: "…") text`, one a line."""
    return "\n".join(
        f'Doc {number}(Title: "{hit.title}") {" ".join(hit.text.split())[:chars]}'
        for number, hit in enumerate(hits[0], 1)
    )


PROTOCOLS = {
    "search_r1": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold="<think> Now there's enough information to answer </think>\n\n<answer> {gold} </answer>",
        observation="\n\n<information>{observation}</information>\n\n",
        stops=("</search>", "</answer>"),
        invalid=INVALID,
        passages=passages,
    )
}
