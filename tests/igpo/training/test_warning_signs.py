"""When a run goes wrong: bounds by hand, remedies that can be set, and three runs replayed."""

import json
import math
import re
from types import SimpleNamespace

import pytest
from root import ROOT

from igpo.experiment import checks
from igpo.training.warning_signs import NOT_FINITE, SIGNS, UPDATE, warnings
from pipeline.settings import merge, overrides

DATA = ROOT / "tests/data"  # written by benchmarks/collapse.py
START = {"searches": 0.9, "well_formed": 0.6, "updated_well_formed": 1.0, "entropy": 0.5}


@pytest.fixture
def bounds(params) -> SimpleNamespace:
    """Section `health` of params.yaml."""
    return SimpleNamespace(**params["health"])


def signs(values: dict, bounds: SimpleNamespace, start: dict = START, **update: float) -> list[str]:
    """The names of the numbers that are warned of."""
    whats = {name: sign.what for name, sign in SIGNS.items()} | UPDATE
    lines = warnings(values, start, update, bounds)
    return [next(name for name, what in whats.items() if line.startswith(f"{what} ")) for line in lines]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        # the bounds themselves
        ({"searches": 0.45, "well_formed": 0.3, "updated_well_formed": 0.9, "entropy": 0.1}, []),
        ({"searches": 0.44}, ["searches"]),
        ({"well_formed": 0.29}, ["well_formed"]),
        ({"updated_well_formed": 0.89}, ["updated_well_formed"]),
        ({"updated_well_formed": None}, []),  # no validation follows the update
        ({"entropy": 0.09}, ["entropy"]),
        ({"searches": 0.0, "entropy": 0.0}, ["searches", "entropy"]),
        ({"entropy": None}, []),  # nothing was sampled
        ({"searches": 3.0, "well_formed": 1.0}, []),
    ],
)
def test_bounds_are_shares_of_the_start(bounds, values, expected):
    assert signs(START | values, bounds) == expected


def test_what_was_nothing_at_the_start_cannot_fall(bounds):
    assert (
        signs({"searches": 0.0, "well_formed": 0.0, "entropy": 0.5}, bounds, dict.fromkeys(START, 0.0)) == []
    )
    assert signs(START, bounds, dict.fromkeys(START)) == []


def test_a_share_of_zero_turns_a_bound_off(bounds):
    bounds.searches = 0
    assert signs(START | {"searches": 0.0}, bounds) == []


@pytest.mark.parametrize("name", UPDATE)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_named(bounds, name, value):
    assert signs(START, bounds, **{"loss": 0.1, "kl": 0.2, name: value}) == [name]


def test_every_remedy_can_be_set_here(params):
    """Each `section.key=value` passes the checks of params.yaml, and each `section.key` is there."""
    for remedy in [*(sign.remedy for sign in SIGNS.values()), NOT_FINITE]:
        named = re.findall(r"\b([a-z]+\.[a-z_]+)(=[\w.#-]+)?", remedy)
        assert named
        for key, value in named:
            section, name = key.split(".")
            assert name in params[section]
            if value:
                checks.check(merge(params, overrides([key + value.rstrip(".")])))


def replayed(name: str) -> list[dict]:
    """health.json of every iteration of a run that benchmarks/collapse.py stored."""
    return [json.loads(file.read_text()) for file in sorted((DATA / name).glob("*.json"))]


def test_a_run_that_stops_searching_is_warned_of_when_it_does(bounds):
    """experiments/collapse.yaml: without a search no answer is malformed; a bad search costs 2."""
    health = replayed("collapse")
    assert [round(values["searches"], 1) for values in health] == [1.4, 0.9, 0.1, 0.0, 0.0]
    assert health[0]["well_formed"] < 0.3 < 0.9 < health[-1]["well_formed"]  # what others would be glad of
    names = [signs(values, bounds, health[0]) for values in health]
    assert names == [[], [], ["searches"], ["searches"], ["searches"]]


VALIDATED_START = {"updated_well_formed": 47 / 48}  # of the two runs below


def test_a_run_whose_greedy_answers_repeat_themselves_is_warned_of(bounds):
    """The default's igpo in fp32, seed 3: what it samples is well-formed as often as before."""
    health = replayed("repeats")
    assert [values["updated_well_formed"] for values in health] == [None, 40 / 48, None, 36 / 48]
    assert health[-1]["well_formed"] > health[0]["well_formed"]
    names = [signs(values, bounds, health[0] | VALIDATED_START) for values in health]
    assert names == [[], ["updated_well_formed"], [], ["updated_well_formed"]]


def test_a_healthy_run_is_not_warned_of(bounds):
    """The default's igpo in fp32, seed 1."""
    health = replayed("healthy")
    assert len(health) == 4
    assert [signs(values, bounds, health[0] | VALIDATED_START) for values in health] == [[], [], [], []]
