"""What adding up gains does to trajectories of different length, and what is advised against it."""

import random
from types import SimpleNamespace

import pytest
from small_batch import DEFAULTS, close, group, run

from igpo.credit.methods import METHODS


def test_joint_normalisation_invents_signal_where_separate_gives_none():
    """Every trajectory right, every gain equal: nothing to learn, but joint advantages punish searching."""
    batch = group([[0.05] * turns + [1.0] for turns in (0, 1, 2, 2)])
    assert run("igpo", batch) == [[0.0] * len(t.rewards) for t in batch]
    joint = run("igpo", batch, normalisation="joint")
    close(joint, [[1.118], [0.2236, 1.118], [-0.6708, 0.2236, 1.118], [-0.6708, 0.2236, 1.118]], 1e-4)


def test_a_pool_of_all_depths_punishes_the_second_search_of_identical_trajectories():
    batch = group([[0.3, -0.1, 1.0], [0.3, -0.1, 1.0]])
    z = METHODS["igpo"](batch, SimpleNamespace(**DEFAULTS))[0]
    close(z, [[1.0, -1.0, 0.0]] * 2, 1e-5)
    assert run("igpo", batch, scope="group_turn") == [[0.0] * 3] * 2


def test_advantages_grow_with_the_number_of_turns():
    """At gamma 1 a first turn's advantage is a sum of T values of unit variance: about sqrt(T) large."""
    draw = random.Random(0).gauss
    means = {}
    for turns in (2, 8):
        batch = group([[draw(0, 1) for _ in range(turns)] for _ in range(2000)])
        first = [abs(row[0]) for row in run("igpo", batch)]
        means[turns] = sum(first) / len(first)
    assert means[8] / means[2] == pytest.approx(2.0, abs=0.1)


def test_joint_scope_by_turn_compares_an_answer_with_searches_of_its_depth():
    advantages = run("igpo", group([[0.0, 1.0], [2.0]]), normalisation="joint", scope="group_turn")
    close(advantages, [[-1.0, 0.0], [1.0]], 1e-5)


# A group of gains 0.4, 0.2, 0.6 (deviation 0.163299) and outcomes 1, 0 (z = 1, -1); 1e-6 is on top of both.
RAW = [[0.4, 0.2, 1.0], [0.6, 0.0]]


def test_raw_ig_by_hand():
    close(
        run("igpo", group(RAW), normalisation="raw_ig"),
        [[3.449473, 2.224735, 0.999998], [2.674214, -0.999998]],
    )
    close(
        run("igpo", group(RAW), normalisation="raw_ig", gain_weight=0.5, outcome_weight=2.0),
        [[3.224733, 2.612364, 1.999996], [-0.16289, -1.999996]],
    )


def test_raw_ig_by_turn_divides_by_the_deviation_of_the_turn():
    """First searches: 0.4 and 0.6, deviation 0.1; the only second one has a deviation of 1."""
    advantages = run("igpo", group(RAW), normalisation="raw_ig", scope="group_turn")
    close(advantages, [[4.999958, 1.199998, 0.999998], [4.999942, -0.999998]])


@pytest.mark.parametrize("std", ["population", "sample"])
def test_raw_ig_keeps_the_gain_of_a_search_that_is_alone(std):
    """Outcomes 1, 0, 0: of a population's deviation their z are sqrt 2, -sqrt 1/2, -sqrt 1/2."""
    for gain in (2.0, -2.0):
        (first, last), *_ = run("igpo", group([[gain, 1.0], [0.0], [0.0]]), normalisation="raw_ig", std=std)
        assert first == pytest.approx(gain + last)
        assert last == pytest.approx(2**0.5 if std == "population" else 2 / 3**0.5, abs=1e-5)


def test_raw_ig_without_a_deviation_leaves_gains_as_they_are():
    rows = run("igpo", group([[0.5, 1.0], [0.5, 1.0], [0.5, 0.0]]), normalisation="raw_ig", std="none")
    close(rows, [[0.833333, 0.333333], [0.833333, 0.333333], [-0.166667, -0.666667]])


def test_raw_ig_accumulates_nothing_and_knows_no_gamma():
    first, *_ = run("igpo", group(RAW), normalisation="raw_ig")
    another, *_ = run("igpo", group([[0.4, 0.6, 1.0], [0.2, 0.0]]), normalisation="raw_ig", gamma=0.5)
    assert another[0] == pytest.approx(first[0], abs=1e-9)


# Four trajectories with outcome 1; two stop after a gain of 0.5, two search on for 0.3 more.
SEARCHED_ON = [[0.5, 1.0], [0.5, 1.0], [0.5, 0.3, 1.0], [0.5, 0.3, 1.0]]


def test_centred_and_accumulated_gains_punish_those_who_search_on():
    """Turn-shortening (verl RFC #7244): who learned more by searching again is pushed down."""
    first = [row[0] for row in run("igpo", group(SEARCHED_ON), std="none")]
    assert first == pytest.approx([0.066667, 0.066667, -0.066667, -0.066667], abs=1e-6)


def test_what_is_advised_against_turn_shortening_does_not_punish_those_who_search_on():
    first = [row[0] for row in run("igpo", group(SEARCHED_ON), normalisation="raw_ig")]
    assert first == pytest.approx([first[0]] * 4)
    first = [row[0] for row in run("gtpo", group(SEARCHED_ON), scope="group_turn", std="none")]
    assert first == pytest.approx([-0.15, -0.15, 0.15, 0.15])
