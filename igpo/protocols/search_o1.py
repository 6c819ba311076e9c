r"""Search-o1's form: free reasoning with queries between marks; what is found is condensed before it is read.

The policy stops at `<|end_search_query|>`. It then reads the documents on the side, given its reasoning so
far and the query; only what it writes there after `**Final Information**` goes on in its message, between
`<|begin_search_result|>` and its end. `\boxed{…}` is the answer. Structure and marks are the published ones,
the wording is ours.
"""

import re

from igpo.protocol import Protocol, Turn, first_action

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
ACTION = re.compile(
    r"<\|begin_search_query\|>(?P<query>.*?)<\|end_search_query\|>|\\boxed\{(?P<answer>[^{}]*)\}", re.DOTALL
)


def parse(text: str) -> Turn:
    r"""The first complete query, or the first `\boxed{…}` (without braces inside)."""
    return first_action(ACTION, text, "neither a complete query nor \\boxed{…}")


def condensed(text: str) -> str:
    """What a reading found: the text after its last heading, or all of it where it has none."""
    return text.rpartition(RESULT)[2].strip()


PROTOCOL = Protocol(
    instructions=INSTRUCTIONS,
    parse=parse,
    scaffold=" Now there's enough information to answer: \\boxed{{gold}}",
    observation="\n\n<|begin_search_result|>{observation}<|end_search_result|>\n\n",
    stops=("<|end_search_query|>",),
    reader=READER,
    condensed=condensed,
)
