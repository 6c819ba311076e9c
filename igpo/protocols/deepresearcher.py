"""The form of DeepResearcher and of IGPO's released checkpoints: Hermes tool calls through the chat template.

The chat template lists the tools as JSON signatures between `<tools>` tags and puts a tool's answer between
`<tool_response>` tags. Turns are those of `igpo`. The structure of the system prompt (date, role, task, tools
by name, plan first, two shapes of a turn, short answers) is the published one, its wording ours: give the
published text in `rollout.instructions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from igpo.protocols.igpo import SCAFFOLD, parse
from igpo.protocols.protocol import Protocol

if TYPE_CHECKING:
    from retrieval.indexes.hits import Hit

INSTRUCTIONS = """\
## Background
* Date: {date}
* You are a research assistant.

The user asks a question that takes several rounds of research to answer.

Tools:
web_search: search the web

In every turn think first, about a plan or about what to look up next. Then write one of these two:
1. once you are able to answer:
<think>
thoughts
</think>
<answer>
final words
</answer>
2. to call a tool:
<think>
thoughts
</think>
<tool_call>
{"name": "tool", "arguments": {"argument": "value"}}
</tool_call>
Between <answer> and </answer> stand only the final words, number or phrase; yes or no where the question \
asks for it."""
WEB_SEARCH = {
    "type": "function",
    "function": {
        "name": "web_search",
        "description": "Search the web.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "One to three queries to run.",
                }
            },
            "required": ["query"],
            "minItems": 1,
            "uniqueItems": True,
        },
    },
}


def passages(queries: Sequence[str], hits: Sequence[Sequence[Hit]], chars: int | None) -> str:
    """The hits as the released handler returns them and as a chat template prints that: Python's repr."""
    results = [
        {
            "search_query": query,
            "web_page_info_list": [
                {"title": hit.title, "url": _url(hit.title), "quick_summary": hit.text[:chars]}
                for hit in query_hits
            ],
        }
        for query, query_hits in zip(queries, hits, strict=True)
    ]
    return str(results)


def _url(title: str) -> str:
    return "https://en.wikipedia.org/wiki/" + quote(title.replace(" ", "_"))


PROTOCOLS = {
    "deepresearcher": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold=SCAFFOLD,
        observation="{observation}",
        opening="<think>",
        passages=passages,
        signatures=(WEB_SEARCH,),
    )
}
