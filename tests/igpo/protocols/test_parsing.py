"""What a protocol reads in a turn: its first action, its answer, its format errors."""

import pytest
from scripted import (
    PROTOCOLS,
    WRITTEN,
)

from igpo.protocols.protocol import Turn


@pytest.mark.parametrize("name", WRITTEN)
def test_a_search_and_an_answer_are_read(name):
    search, answer = WRITTEN[name]
    assert PROTOCOLS[name].parse(search) == Turn(tool="web_search", queries=["moby"])
    assert PROTOCOLS[name].parse(answer) == Turn(answer="Melville")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("search_r1", "<think> Melville </think>", "neither"),
        ("search_r1", "<answer> Melville", "neither"),
        ("r1_searcher", "<answer> Melville </answer>", "neither"),  # without </think>
        ("r1_searcher", "<|begin_of_query|> moby", "neither"),
        ("react", " Melville", "neither"),
        ("react", " The label Final Answer: stands within a line", "neither"),
        ("react", " a\nAction: web_search\nObservation:", "without Action Input"),
        ("react", " a\nAction: web_search\nAction Input: moby", "doesn't wait"),
        ("search_o1", "Melville", "neither"),
        ("closed_book_cot", "Melville wrote it.", "So the answer is"),
    ],
)
def test_what_is_a_format_error(name, text, error):
    assert error in (PROTOCOLS[name].parse(text).error or "")


@pytest.mark.parametrize(
    ("name", "text", "turn"),
    [
        ("search_r1", "<search>a</search><answer>b</answer>", Turn(tool="web_search", queries=["a"])),
        ("search_r1", "<search> </search>", Turn(tool="web_search")),
        ("react", " x\nFinal Answer: a\nAction: web_search\nAction Input: b\nObservation:", None),
        ("react", ' x\nAction: look\nAction Input: "b"\nObservation:', Turn(tool="look", queries=["b"])),
        ("react", ' x\nAction: a\nAction Input: "b" c\nObservation:', Turn(tool="a", queries=['"b" c'])),
        ("search_o1", "\\boxed{a} <|begin_search_query|>b<|end_search_query|>", Turn(answer="a")),
        ("closed_book", " a\nQuestion: b", Turn(answer="a")),
        ("closed_book_cot", " Because. So the answer is: a\nmore", Turn(answer="a")),
    ],
)
def test_the_first_action_counts(name, text, turn):
    expected = turn or Turn(answer="a\nAction: web_search\nAction Input: b")
    assert PROTOCOLS[name].parse(text) == expected


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is \\boxed{\\text{Ada Quill}}.", "Ada Quill"),
        ("It goes into \\boxed{}. It is \\boxed{Ada Quill}.", "Ada Quill"),
        ("\\boxed{Ada} or \\boxed{Bo}. \\boxed{}", "Bo"),
        ("\\boxed{\\boxed{Ada}} \\boxed{never closed", "Ada"),
        ("\\boxed{$\\mathrm{Ada}$}", "Ada"),
        ("\\boxed{f\\{x\\} {y}}", "f\\{x\\} {y}"),
        ("\\boxed{\\text{A} and \\text{B}}", "A and B"),
        ("\\boxed{\\textit{The \\textbf{Sea}},~\\emph{Part}\\ 2}", "The Sea, Part 2"),
        ("\\boxed{\\text{A} and \\text{B}", None),
        ("\\boxed{} \\boxed{\\text{}}", None),
        ("\\boxed{Ada", None),
    ],
)
def test_the_last_closed_box_with_text_is_search_o1s_answer(text, answer):
    assert PROTOCOLS["search_o1"].parse(text).answer == answer
