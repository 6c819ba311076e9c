"""Metrics by hand."""

from types import SimpleNamespace

import pytest

from igpo import evaluate, schema
from retrieval.stage import UserError

PARAMS = SimpleNamespace(bootstrap=500, seed=0)
QUESTION = {"answers": ["New York"], "supporting_ids": ["1", "2"], "benchmark": "b", "type": "t"}


def trajectory(turns, answer, stop, question_id="q", sample=0):
    """Rollout rows from (queries, hit ids) of every turn."""
    rows = []
    for turn, (queries, hits) in enumerate([([], []), *turns]):
        row = dict.fromkeys(schema.ROLLOUTS.names)
        row |= {
            "question_id": question_id,
            "sample": sample,
            "turn": turn,
            "queries": queries,
            "hit_ids": hits,
        }
        row |= {"tool": "web_search" if queries else None, "policy_ids": [], "observation_ids": []}
        rows.append(row)
    rows[-1] |= {"answer": answer, "stop": stop}
    return rows


def test_an_answered_trajectory():
    rows = trajectory([(["a", "b"], ["1", "9"]), (["c"], ["1"]), ([], [])], "York", "answered")
    found = evaluate.trajectory_metrics(rows, QUESTION, -2.0)
    assert found == {
        "f1": pytest.approx(2 / 3),
        "em": 0.0,
        "f1_format": pytest.approx(2 / 3),
        "answer_rate": 1.0,
        "format_failure": 0.0,
        "turns": 3.0,
        "searches": 3.0,
        "gold_recall": 0.5,
    }


@pytest.mark.parametrize(
    ("stop", "failure"), [("format_error", 1.0), ("turn_limit", 0.0), ("token_limit", 1.0)]
)
def test_an_unanswered_trajectory(stop, failure):
    found = evaluate.trajectory_metrics(trajectory([([], [])], None, stop), QUESTION, -2.0)
    assert (found["f1"], found["f1_format"], found["answer_rate"]) == (0.0, -2.0, 0.0)
    assert found["format_failure"] == failure


def test_a_question_counts_once_whatever_its_samples():
    rows = [
        *trajectory([([], [])], "New York", "answered", "q1", 0),
        *trajectory([([], [])], "x", "answered", "q1", 1),
        *trajectory([([], [])], "x", "answered", "q2", 0),
    ]
    found = evaluate.question_metrics(rows, {"q1": QUESTION, "q2": QUESTION}, -2.0, {"q2"})
    assert [(row["f1"], row["covered"]) for row in found] == [(0.5, True), (0.0, False)]
    assert evaluate.summary(found, PARAMS)["f1"]["mean"] == 0.25


def test_the_interval_holds_the_mean_and_is_reproducible():
    values = [0.0] * 50 + [1.0] * 50
    first, second = evaluate.interval(values, 2000, 1), evaluate.interval(values, 2000, 1)
    assert first == second
    assert first["low"] == pytest.approx(0.4, abs=0.02)
    assert first["high"] == pytest.approx(0.6, abs=0.02)


def test_an_unknown_question_is_an_error():
    with pytest.raises(UserError, match="lacks 'q'"):
        evaluate.question_metrics(trajectory([([], [])], "x", "answered"), {}, -2.0, None)
