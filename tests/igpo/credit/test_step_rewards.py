"""Step rewards by hand, and TF-IDF against scikit-learn."""

import math

import pytest
import yaml
from golden import STEPSEARCH_HITS, STEPSEARCH_MATCHES, STEPSEARCH_REWARDS

from igpo.credit.step_rewards import (
    STEP_REWARDS,
    Evidence,
    gain_less_redundancy,
    similarity,
    stepsearch,
    tf_idf,
)
from pipeline.settings import SCHEMA


def evidence(gold=(), hits=(), supporting=(), vectors=None) -> Evidence:
    return Evidence(gold, hits, supporting, vectors or {})


def test_every_step_reward_can_be_chosen():
    choices = yaml.safe_load(SCHEMA.read_text())["properties"]["score"]["properties"]["step_reward"]["enum"]
    assert choices == list(STEP_REWARDS)


def test_differences_by_hand():
    gold = [[-3.0], [-1.0], [-2.0]]
    assert STEP_REWARDS["log_prob_diff"](evidence(gold)) == [2.0, -1.0]
    expected = [math.exp(-1) - math.exp(-3), math.exp(-2) - math.exp(-1)]
    assert STEP_REWARDS["prob_diff"](evidence(gold)) == pytest.approx(expected)


def test_counterfactual_by_hand():
    gold = [[-3.0], [-1.0, -2.0, -4.0], [-2.0, -1.0], [-2.0]]
    assert STEP_REWARDS["counterfactual"](evidence(gold)) == [2.0, -1.0, 0.0]


def test_none_gives_every_search_turn_zero():
    assert STEP_REWARDS["none"](evidence(hits=[["a"], []])) == [0.0, 0.0]
    assert STEP_REWARDS["none"](evidence()) == []


def test_stepsearch_equals_the_worked_case():
    """Gains .25, .125, .125; redundancy 0, .5 and, where both documents were known, 1."""
    assert gain_less_redundancy(STEPSEARCH_MATCHES, STEPSEARCH_HITS) == STEPSEARCH_REWARDS
    assert gain_less_redundancy([], []) == []


def test_stepsearch_by_hand():
    """Passages that match so in turns 1 and 2 as the worked case's do; in the third, one is new."""
    orthogonal = {"x": {"x": 1.0}, "y": {"y": 1.0}}
    vectors = orthogonal | {"a": {"x": 0.5}, "b": {}, "c": {"y": 0.25}, "d": {"x": 0.75, "y": 0.125}}
    hits = [["a", "b"], ["a", "c"], ["d", "a"]]
    rewards = stepsearch(evidence(hits=hits, supporting=["x", "y"], vectors=vectors))
    assert rewards == pytest.approx([0.25, -0.375, 0.125 - 0.5])
    repeated = stepsearch(evidence(hits=[["a", "b"], ["b", "a"]], supporting=["x", "y"], vectors=vectors))
    assert repeated == pytest.approx([0.25, -1.0])


def test_stepsearch_of_a_search_that_found_nothing_is_zero():
    assert stepsearch(evidence(hits=[[]], supporting=["x"], vectors={"x": {"x": 1.0}})) == [0.0]


def test_tf_idf_equals_scikit_learn_s():
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    texts = {
        "a": "Rome: capital of Italy, on the Tiber. Rome is old",
        "b": "Paris: Capital of France",
        "c": "Tiber: river in Italy, a 406 km river",
        "d": "",
    }
    matrix = sklearn.TfidfVectorizer().fit_transform(texts.values())
    expected = (matrix @ matrix.T).toarray()
    vectors = list(tf_idf(texts).values())
    for i, left in enumerate(vectors):
        for j, right in enumerate(vectors):
            assert similarity(left, right) == pytest.approx(expected[i, j], abs=1e-12)
