"""Advantages against worked cases, invariances, and the released code's known slips."""

from types import SimpleNamespace

import pytest
from golden import CASES, EXPECTED

from igpo import advantage, schema
from igpo.advantage import advantages, discounted, grpo, igpo, z_scores
from retrieval import tables
from retrieval.stage import UserError


def params(**changed) -> SimpleNamespace:
    known = {"method": "igpo", "normalisation": "separate", "gamma": 1.0, "std": "population"}
    return SimpleNamespace(**known | changed)


@pytest.mark.parametrize("case", EXPECTED, ids=str)
def test_igpo_equals_the_worked_cases(case):
    name, normalisation, gamma = case
    for group, rewards in CASES[name].items():
        _, found = igpo(rewards, params(normalisation=normalisation, gamma=gamma))
        for values, expected in zip(found, EXPECTED[case][group], strict=True):
            assert values == pytest.approx(expected, abs=2e-6)


def test_z_scores_by_hand():
    assert z_scores([1.0, 3.0], 0) == pytest.approx([-1 / 1.000001, 1 / 1.000001])
    assert z_scores([1.0, 3.0], 1) == pytest.approx([-1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6)])


def test_no_spread_gives_exactly_zero():
    assert z_scores([0.1] * 16, 0) == [0.0] * 16
    assert z_scores([0.7], 0) == z_scores([0.7], 1) == [0.0]


def test_discounted_by_hand():
    assert discounted([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


def test_a_turn_whose_normalised_reward_is_zero_is_still_discounted():
    """The released code finds turns by "not zero" and merges such a turn with the next one."""
    _, found = igpo(CASES["exact_zeros"]["g0"], params(gamma=0.9))
    assert found[1][0] == pytest.approx(0.9 * found[1][1], abs=1e-6)
    assert found[1][0] != pytest.approx(found[1][1], abs=1e-3)


def test_grpo_ignores_information_gain():
    """The released GRPO script trains with information gain; outcome only must mean that."""
    group = CASES["ragged"]["g0"]
    without = [[0.0] * (len(rewards) - 1) + rewards[-1:] for rewards in group]
    assert grpo(group, params()) == grpo(without, params())


def test_grpo_by_hand():
    _, found = grpo([[0.3, 1.0], [0.0]], params(std="sample"))
    assert found == [pytest.approx([0.5 / (0.5**0.5 + 1e-6)] * 2), pytest.approx([-0.5 / (0.5**0.5 + 1e-6)])]


@pytest.mark.parametrize("method", [igpo, grpo])
def test_shift_scale_and_order_do_not_matter(method):
    group = CASES["ragged"]["g0"]
    _, expected = method(group, params())
    _, moved = method([[3 * value + 2 for value in rewards] for rewards in group], params())
    _, reordered = method(group[::-1], params())
    for left, right, mirrored in zip(expected, moved, reordered[::-1], strict=True):
        assert left == pytest.approx(right, abs=2e-5)
        assert left == pytest.approx(mirrored, abs=1e-12)


def test_joint_normalisation_invents_signal_where_separate_gives_none():
    """Every trajectory right and every gain equal: nothing to learn (algorithms.md 2.2)."""
    group = [[0.05] * turns + [1.0] for turns in (0, 1, 2, 2)]
    assert igpo(group, params())[1] == [[0.0] * len(rewards) for rewards in group]
    assert igpo(group, params(normalisation="joint"))[1][0][0] == pytest.approx(1.118, abs=1e-3)


def score_rows(group: str, rewards: list[list[float]]) -> list[dict]:
    rows = []
    for sample, values in enumerate(rewards):
        for turn, value in enumerate([None, *values]):
            last = turn == len(values)
            key = {"question_id": group, "sample": sample, "turn": turn}
            gain, outcome = (None, value) if last else (value, None)
            rows.append({**key, "info_gain": gain, "outcome": outcome})
    return rows


def test_groups_do_not_mix():
    rows = [*score_rows("g0", CASES["ragged"]["g0"]), *score_rows("g1", CASES["ragged"]["g1"])]
    both = advantages(rows, params())
    alone = advantages(rows[: len(score_rows("g0", CASES["ragged"]["g0"]))], params())
    assert both[: len(alone)] == alone
    assert [row["turn"] for row in alone] == [1, 2, 3, 1, 2, 1, 2, 3, 4, 1]


def test_a_missing_information_gain_is_an_error():
    """The released code falls back to the outcome, silently."""
    rows = score_rows("g0", [[0.1, 1.0]])
    rows[1]["info_gain"] = None
    with pytest.raises(UserError, match=r"info_gain of \('g0', 0, 1\) is None"):
        advantages(rows, params())


def test_scores_of_other_rollouts_are_refused(tmp_path):
    def row(**values):
        return {name: values.get(name) for name in schema.SCORES.names}

    def rollout(**values):
        return {name: values.get(name) for name in schema.ROLLOUTS.names}

    keys = [{"question_id": "q", "sample": 0, "turn": turn} for turn in (0, 1)]
    tables.write([rollout(**key) for key in keys], schema.ROLLOUTS, tmp_path / "r", schema.TURN_KEY)
    tables.write([row(**keys[0])], schema.SCORES, tmp_path / "s", schema.TURN_KEY)
    with pytest.raises(UserError, match="score these rollouts again"):
        advantage.check_keys(tmp_path / "r", tmp_path / "s")
