"""Tables of one iteration are joined by question, sample and turn."""

import pytest

from igpo.experiment.schema import joined, tokens
from pipeline.errors import UserError


def row(turn: int, question: str = "q", **columns: object) -> dict:
    return {"question_id": question, "sample": 0, "turn": turn, **columns}


ROLLOUTS = [
    row(0, stop=None, policy_ids=[], observation_ids=[1, 2, 3]),
    row(1, stop=None, policy_ids=[4], observation_ids=[5, 6]),
    row(2, stop="answered", policy_ids=[7, 8], observation_ids=[]),
]
SCORES = [row(turn, outcome=turn) for turn in range(3)]
ADVANTAGES = [row(turn, advantage=10 * turn) for turn in (1, 2)]


def test_rows_get_the_columns_of_their_turn_in_whatever_order_these_are():
    (trajectory,) = joined(ROLLOUTS, scores=SCORES[::-1], advantages=ADVANTAGES[::-1])
    assert [(turn["turn"], turn["outcome"], turn.get("advantage")) for turn in trajectory] == [
        (0, 0, None),
        (1, 1, 10),
        (2, 2, 20),
    ]
    assert "outcome" not in ROLLOUTS[0]


def test_questions_that_the_rollouts_lack_are_left_out():
    (trajectory,) = joined(ROLLOUTS, scores=[*SCORES, row(0, "other", outcome=9)])
    assert len(trajectory) == 3


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"scores": SCORES[1:]}, r"scores: .* turn \('q', 0, 0\) of the rollouts is not in scores"),
        ({"advantages": ADVANTAGES[:1]}, r"turn \('q', 0, 2\) of the rollouts is not in advantages"),
        ({"scores": [*SCORES, row(3)]}, r"scores: .* turn \('q', 0, 3\) of scores is not in the rollouts"),
        ({"values": []}, r"turn \('q', 0, 1\) of the rollouts is not in values"),
    ],
)
def test_a_missing_and_a_further_turn_are_one_error(tables, message):
    with pytest.raises(UserError, match=message):
        joined(ROLLOUTS, **tables)


def test_tokens_are_those_of_prompt_policy_and_tools():
    assert tokens(ROLLOUTS) == 8
