"""IGPO's own form, in which small policies are warmed up: JSON calls between tags, after a thought.

A turn is `<think>…</think>` followed by a search,

    <tool_call>
    {"name": "web_search", "arguments": {"query": ["…"]}}
    </tool_call>

or, if that tool is on, by a call of `open` with `{"title": "…"}`, which reads on in a page that was
found, or by `<answer>…</answer>`. `<think>` itself is given, not sampled. The instructions are ours, and
shorter than the published ones: `deepresearcher` is nearer to those.
"""

import json
from collections.abc import Sequence

from igpo.protocols.protocol import Protocol, Turn
from retrieval.indexes.hits import clean

MAX_QUERIES = 3  # of one call; the others are ignored, as in IGPO and DeepResearcher
TAGS = ("think", "tool_call", "answer", "code")  # <code> must be balanced too, as in the releases
INSTRUCTIONS = """\
Answer the question with the help of a search engine. First write what to look up next between <think> \
and </think>. Then either search:
<tool_call>
{"name": "web_search", "arguments": {"query": ["words to look up"]}}
</tool_call>
{open}or, once you know it, answer with the final words only:
<answer>
final words
</answer>"""
OPEN = """\
or read on in a page that was found:
<tool_call>
{"name": "open", "arguments": {"title": "page title"}}
</tool_call>
"""
# Word for word the released code's, for comparable scores.
SCAFFOLD = "\nNow there's enough information to answer\n</think>\n<answer>\n{gold}\n</answer>"


def parse(text: str) -> Turn:
    """Parse what the policy wrote after the given `<think>`.

    An answer wins over a call in the same turn; of several calls the first counts.
    """
    for tag in TAGS:
        is_given = tag == "think"
        if text.count(f"<{tag}>") + is_given != text.count(f"</{tag}>"):
            return Turn(error=f"unbalanced <{tag}>")
    body = text.partition("</think>")[2]
    for tag in ("answer", "tool_call"):
        if f"<{tag}>" in body:
            inside, closing, _ = body.partition(f"<{tag}>")[2].partition(f"</{tag}>")
            if not closing:
                return Turn(error=f"unclosed <{tag}>")
            return Turn(answer=inside.strip()) if tag == "answer" else _call(inside.strip())
    return Turn(error="neither <answer> nor <tool_call> after </think>")


def _call(text: str) -> Turn:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return Turn(error="<tool_call> is not JSON")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return Turn(error="<tool_call> has no name")
    if not isinstance(call.get("arguments"), dict):
        return Turn(error="<tool_call> has no arguments")
    arguments = call["arguments"]
    queries = [arguments.get("title")] if call["name"] == "open" else arguments.get("query")
    valid = isinstance(queries, list) and all(isinstance(query, str) for query in queries)
    return Turn(tool=clean(call["name"]), queries=list(map(clean, queries[:MAX_QUERIES])) if valid else [])


def call_text(queries: Sequence[str]) -> str:
    """A search call as the policy is taught to write it."""
    call = {"name": "web_search", "arguments": {"query": list(queries)}}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


PROTOCOLS = {
    "igpo": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold=SCAFFOLD,
        observation="<tool_response>\n{observation}\n</tool_response>",
        opening="<think>",
        open=OPEN,
    )
}
