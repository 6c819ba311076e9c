"""A ReAct-style form: Thought, Action, Action Input, Observation, …, Final Answer, in one message.

`Thought:` is given. A call is complete once the policy has written `Observation:` itself, where it stops. The
instructions are ours.
"""

import re

from igpo.protocols.protocol import Protocol, Turn

INSTRUCTIONS = """\
Answer the question. You have one tool, web_search: it takes words to look up and returns passages. Write \
these lines, the first four as often as you need them:

Thought: what to do next
Action: web_search
Action Input: words to look up
Observation: what the tool returns
Thought: I know the answer
Final Answer: the final words only

Question: {question}"""
STOP = "\nObservation:"
LABEL = re.compile(r"^(Action|Final Answer):", re.MULTILINE)
CALL = re.compile(r"^Action:(.*)\nAction Input:(.*)", re.MULTILINE)


def parse(text: str) -> Turn:
    """The first action or final answer after the given `Thought:`; labels stand where a line begins."""
    head, stop, _ = text.partition(STOP)
    label = LABEL.search(head)
    if label is None:
        return Turn(error="neither Action: nor Final Answer:")
    if label[1] == "Final Answer":
        return Turn(answer=head[label.end() :].strip())
    call = CALL.match(head, label.start())
    if call is None:
        return Turn(error="Action: without Action Input:")
    if not stop:
        return Turn(error="an action that doesn't wait for its Observation:")
    query = re.sub(r'^"([^"]*)"$', r"\1", call[2].strip())
    return Turn(tool=call[1].strip(), queries=[query] if query else [])


PROTOCOLS = {
    "react": Protocol(
        instructions=INSTRUCTIONS,
        parse=parse,
        scaffold=" I know the answer\nFinal Answer: {gold}",
        observation=" {observation}\nThought:",
        opening="Thought:",
        stops=(STOP,),
    )
}
