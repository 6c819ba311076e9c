"""Answers in one turn after six examples, with or without a search for the question and a thought.

The baselines `closed_book` and `rag`, and with a chain of thought `closed_book_cot` and `rag_cot`. The
prompts are plain text, ours.
"""

from dataclasses import replace

from igpo.protocols.protocol import Protocol, Turn

# (question, thought, answer). Facts outside the test questions: the form is shown, not the answers.
EXAMPLES = (
    (
        "When was the Eiffel Tower completed?",
        "The Eiffel Tower was built for the World's Fair of 1889 in Paris.",
        "1889",
    ),
    (
        "Who wrote Don Quixote?",
        "Don Quixote is a Spanish novel by Miguel de Cervantes.",
        "Miguel de Cervantes",
    ),
    (
        "In which year did Julius Caesar die?",
        "Julius Caesar was murdered on the Ides of March in 44 BC.",
        "44 BC",
    ),
    (
        "Which element has the symbol Fe?",
        "Fe stands for ferrum, the Latin word for iron.",
        "Iron",
    ),
    (
        "What is the capital of Portugal?",
        "Portugal is governed from Lisbon.",
        "Lisbon",
    ),
    (
        "In which year was Marie Curie born?",
        "Marie Curie was born in Warsaw in November 1867.",
        "1867",
    ),
)
SO = "So the answer is:"


def first_line(text: str) -> Turn:
    """The answer is the first line."""
    return Turn(answer=text.strip().partition("\n")[0].strip())


def after_thought(text: str) -> Turn:
    """The answer stands in the first line after `So the answer is:`."""
    _, marker, answer = text.strip().partition("\n")[0].partition(SO)
    return Turn(answer=answer.strip()) if marker else Turn(error=f"no {SO!r}")


def _shots(thoughts: bool) -> str:
    ends = [
        f"Thought: {why} {SO} {answer}" if thoughts else f"Answer: {answer}" for _, why, answer in EXAMPLES
    ]
    return "".join(
        f"Question: {question}\n{end}\n\n" for (question, _, _), end in zip(EXAMPLES, ends, strict=True)
    )


def with_passages(protocol: Protocol) -> Protocol:
    """The protocol with the passages of a search for the question ahead of the question."""
    return replace(
        protocol, instructions=protocol.instructions.replace("Question: {q", "{passages}Question: {q")
    )


DIRECT = Protocol(
    instructions=_shots(False) + "Question: {question}\nAnswer:",
    parse=first_line,
    scaffold=" {gold}\n",
    stops=("\n",),
    chat=False,
    cut_answers=True,
)
COT = Protocol(
    instructions=_shots(True) + "Question: {question}\nThought:",
    parse=after_thought,
    scaffold=f" {SO} {{gold}}\n",
    stops=("\n",),
    chat=False,
)
PROTOCOLS = {
    "closed_book": DIRECT,
    "closed_book_cot": COT,
    "rag": with_passages(DIRECT),
    "rag_cot": with_passages(COT),
}
