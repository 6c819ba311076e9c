"""F1 and EM as the paper's evaluation computes them."""

import pytest

from igpo.credit.answer_metrics import (
    exact_match,
    f1,
    normalise,
    outcome,
    squad_exact_match,
    squad_f1,
    squad_normalise,
)


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
    """Disagreement 7: the paper prints no number; the released code's is -2."""
    assert outcome(None, ["Paris"], -2.0) == -2.0
    assert outcome("", ["Paris"], -2.0) == 0.0
    assert outcome("Paris", ["Paris"], -2.0) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Beatles!", "beatles"),
        ("U.S.", "us"),
        ("a rock-and-roll band", "rockandroll band"),
        ("An A-ha theme", "aha theme"),  # articles go after punctuation, as whole words
        ("Ærø—Øst", "ærø—øst"),
    ],
)
def test_squad_normalise(text, expected):
    assert squad_normalise(text) == expected


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [
        ("the Paris", ["Paris"], 1.0),
        ("duran duran", ["Duran"], 2 / 3),  # a multiset: 1 common of 2 and 1 words
        ("duran duran", ["Duran Duran"], 1.0),
        ("b c d", ["c d e", "c"], 2 / 3),
        ("the", ["a"], 0.0),  # nothing left of either
        (None, ["Paris"], 0.0),
    ],
)
def test_squad_f1(answer, golds, expected):
    assert squad_f1(answer, golds) == pytest.approx(expected)


def test_squad_exact_match_drops_articles_and_joins_at_punctuation():
    assert squad_exact_match("The Beatles", ["X", "beatles"]) == 1.0
    assert squad_exact_match("New-York", ["New York"]) == 0.0
    assert squad_exact_match(None, ["x"]) == 0.0


@pytest.mark.parametrize(("match", "score"), [(exact_match, f1), (squad_exact_match, squad_f1)])
@pytest.mark.parametrize("gold", ["!!!", "?", "The"])
def test_a_gold_of_which_the_rules_leave_nothing_is_compared_as_it_stands(match, score, gold):
    assert (match(gold, [gold]), score(gold, [gold])) == (1.0, 1.0)
    assert (match(f" {gold.lower()} ", [gold]), score(f" {gold.lower()} ", [gold])) == (1.0, 1.0)
    for answer in ("", ".", "Paris"):
        assert (match(answer, [gold]), score(answer, [gold])) == (0.0, 0.0)


def test_a_chinese_or_japanese_character_is_a_word():
    assert f1("東京都", ["東京"]) == squad_f1("東京都", ["東京"]) == 4 / 5
    assert exact_match("東京", ["東京"]) == 1.0
    assert exact_match("東京都", ["東京"]) == 0.0
    assert f1("서울시", ["서울"]) == 0.0  # Korean has spaces


def test_so_is_one_of_thai_or_khmer_with_its_marks():
    assert f1("กรุงเทพมหานคร", ["กรุงเทพ"]) == 2 * 6 / (6 + 12)
    assert f1("รุ", ["รู"]) == 0.0  # one letter, two vowels


@pytest.mark.parametrize(("match", "score"), [(exact_match, f1), (squad_exact_match, squad_f1)])
@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("José", "Jose\u0301"),
        ("2024", "２０２４"),
        ("Ada (Quill)", "Ada （Quill）"),
        ("Ada Quill", "\ufeffAda\u200e Qu\xadill\u200b"),
    ],
)
def test_texts_that_look_alike_are_equal(match, score, answer, gold):
    assert (match(answer, [gold]), score(answer, [gold])) == (1.0, 1.0)
    assert (match(gold, [answer]), score(gold, [answer])) == (1.0, 1.0)
