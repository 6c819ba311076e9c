"""F1 and EM as the paper's evaluation computes them."""

import pytest

from igpo.reward import exact_match, f1, normalise, outcome


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "the beatles"),
        ("U.S.", "u s"),
        ("rock-and-roll", "rock and roll"),
        ("", ""),
        ("Ærø—Øst", "ærø—øst"),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("Paris", ["paris"], 1.0),
        ("in Paris", ["Paris"], 2 / 3),
        ("the the cat", ["the cat"], 1.0),  # sets: a repeated word counts once
        ("a b c d", ["c d e"], 4 / 7),
        ("London", ["Paris"], 0.0),
        ("", ["Paris"], 0.0),
        ("...", ["Paris"], 0.0),
        ("in Paris", ["London", "Paris"], 2 / 3),  # best alias
    ],
)
def test_f1(answer, golds, expected):
    assert f1(answer, golds) == pytest.approx(expected)


def test_exact_match_takes_any_alias_and_keeps_articles():
    assert exact_match("New-York", ["NYC", "new york"]) == 1.0
    assert exact_match("the Beatles", ["Beatles"]) == 0.0


def test_outcome_is_the_penalty_for_a_malformed_trajectory():
    assert outcome(None, ["Paris"], -2.0) == -2.0
    assert outcome("", ["Paris"], -2.0) == 0.0
    assert outcome("Paris", ["Paris"], -2.0) == 1.0
