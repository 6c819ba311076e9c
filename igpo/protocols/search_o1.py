r"""Search-o1's form: free reasoning with queries between marks; what is found is condensed before it is read.

The policy stops at `<|end_search_query|>`. It then reads the documents on the side, given its reasoning so
far and the query; only what it writes there after `**Final Information**` goes on in its message, between
`<|begin_search_result|>` and its end. The last `\boxed{…}` is the answer. Structure and marks are the
published ones, the wording is ours.
"""

import re

from igpo.protocols.protocol import Protocol, Turn, search_for

INSTRUCTIONS = """\
You reason step by step and may search the web. To search, write <|begin_search_query|> query \
<|end_search_query|>. The pages found are read for you, and what helps comes back as <|begin_search_result|> \
information <|end_search_result|>. Search again whenever you need to, then go on with your reasoning. End \
with the final words alone in \\boxed{}.

Question: {question}"""
READER = """\
Read the pages below for someone who is in the midst of reasoning. Pick what answers the query and moves the \
reasoning on, check it, and say it in a sentence or two that could follow the reasoning.

Reasoning so far:
{reasoning}

Query:
{query}

Pages:
{documents}

End with what you found, in this form, or with "No helpful information found." in its place:
**Final Information**
what you found"""
RESULT = "**Final Information**"
QUERY = re.compile(r"<\|begin_search_query\|>(.*?)<\|end_search_query\|>", re.DOTALL)
BOX = re.compile(r"\\boxed\s*\{")
WRAPPED = re.compile(r"\\(?:boxed|emph|text\w*|math\w+|mbox)\s*\{")
SPACE = re.compile(r"\\ |\\quad\b|~")


def balanced(text: str, start: int) -> str | None:
    """What stands from `start` up to the brace that closes the one before it; None if nothing closes it."""
    depth = 1
    for match in re.finditer(r"\\[{}]|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return text[start : start + match.start()]
    return None


def unwrapped(text: str) -> str:
    r"""A box's text without `$…$` around it; of `\text{…}` or a box within it stays what it holds."""
    for match in reversed(list(WRAPPED.finditer(text))):
        content = balanced(text, match.end())
        if content is not None:
            text = text[: match.start()] + content + text[match.end() + len(content) + 1 :]
    text = SPACE.sub(" ", text).strip()
    return unwrapped(text[1:-1]) if len(text) > 1 and text[0] == text[-1] == "$" else text


def boxed(text: str) -> str | None:
    r"""The last `\boxed{…}` that is closed and holds text; None if there is none."""
    contents = (balanced(text, match.end()) for match in BOX.finditer(text))
    return next(filter(None, reversed([unwrapped(content) for content in contents if content])), None)


def parse(text: str) -> Turn:
    r"""The last box before the first complete query, else that query."""
    query = QUERY.search(text)
    answer = boxed(text[: query.start()] if query else text)
    if answer is not None:
        return Turn(answer=answer)
    if query is None:
        return Turn(error="neither a complete query nor \\boxed{…}")
    return search_for(query[1])


def condensed(text: str) -> str:
    """What a reading found: the text after its last heading, or all of it if it has none."""
    return text.rpartition(RESULT)[2].strip()


PROTOCOLS = {
    "search_o1": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold=" Now there's enough information to answer: \\boxed{{gold}}",
        observation="\n\n<|begin_search_result|>{observation}<|end_search_result|>\n\n",
        stops=("<|end_search_query|>",),
        reader=READER,
        condensed=condensed,
    )
}
