"""Methods against worked cases, invariances, and the released code's known slips."""

import itertools
import random
from dataclasses import replace
from types import SimpleNamespace

import make_golden
import pytest
import yaml
from golden import CASES, EXPECTED, NEIGHBOURS, SHOWN, TOKENS, WEIGHTED
from small_batch import DEFAULTS, close, group, run

from igpo.credit.methods import METHODS, WITH_CRITIC, Rewards, discounted, z_scores
from pipeline.settings import SCHEMA

# What further settings a method takes, and every choice of them: properties are asked of all.
CHOICES = {"normalisation": ("separate", "joint", "raw_ig"), "scope": ("group", "group_turn")}
TAKEN = {"igpo": ("normalisation", "scope"), "gtpo": ("scope",)}
VARIANTS = [
    pytest.param(method, dict(zip(names, chosen, strict=True)), id="-".join([method, *chosen]))
    for method in METHODS
    for names in [TAKEN.get(method, ())]
    for chosen in itertools.product(*(CHOICES[name] for name in names))
]
OVER_THE_BATCH = ("reinforce_pp", "reinforce_pp_baseline", *WITH_CRITIC)  # whitened
BY_GROUP = [variant for variant in VARIANTS if variant.values[0] not in OVER_THE_BATCH]
every_variant = pytest.mark.parametrize(("method", "chosen"), VARIANTS)
every_variant_by_group = pytest.mark.parametrize(("method", "chosen"), BY_GROUP)


def ragged() -> list[Rewards]:
    draw = random.Random(1).random
    return [
        Rewards(name, *columns, values=[draw() for _ in columns[0]])
        for name in ("g0", "g1")
        for columns in zip(CASES["ragged"][name], TOKENS[name], SHOWN[name], strict=True)
    ]


ALONE = Rewards("alone", [1.0], [2], ["q"], [0.2])


def test_every_method_can_be_chosen():
    choices = yaml.safe_load(SCHEMA.read_text())["properties"]["advantage"]["properties"]["method"]["enum"]
    assert choices == list(METHODS)


def test_z_scores_by_hand():
    assert z_scores([1.0, 3.0], "population") == pytest.approx([-1 / 1.000001, 1 / 1.000001])
    assert z_scores([1.0, 3.0], "sample") == pytest.approx([-1 / (2**0.5 + 1e-6), 1 / (2**0.5 + 1e-6)])
    assert z_scores([1.0, 3.0], "none") == [-1.0, 1.0]


def test_discounted_by_hand():
    assert discounted([1.0, 2.0, 4.0], 0.5) == [3.0, 4.0, 4.0]


@pytest.mark.parametrize("case", EXPECTED, ids=str)
def test_igpo_equals_the_worked_cases(case):
    """Disagreement 4: the first released code normalises neither separately nor jointly."""
    name, normalisation, gamma = case
    batch = [t for key, rewards in CASES[name].items() for t in group(rewards, key)]
    advantages = run("igpo", batch, normalisation=normalisation, gamma=gamma)
    close(advantages, [row for key in CASES[name] for row in EXPECTED[case][key]])


@pytest.mark.parametrize(("method", "settings", "expected"), NEIGHBOURS, ids=lambda value: str(value)[:40])
def test_neighbours_equal_the_worked_case(method, settings, expected):
    batch = ragged()
    rows = [e if isinstance(e, list) else [e] * len(t.rewards) for e, t in zip(expected, batch, strict=True)]
    close(run(method, batch, **settings), rows)


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("normalisation", ["separate", "joint"])
def test_curriculum_weights_act_after_normalisation(name, normalisation):
    """Disagreement 13: the released code weighs rewards ahead of a z-score, which cancels the weights."""
    batch = [t for key, rewards in CASES[name].items() for t in group(rewards, key)]
    weighted = run("igpo", batch, outcome_weight=0.5, normalisation=normalisation)
    if normalisation == "separate":
        close(weighted, WEIGHTED[name])
    plain, gains_alone = (
        run("igpo", batch, outcome_weight=weight, normalisation=normalisation) for weight in (1.0, 0.0)
    )
    halfway = [
        [(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(plain, gains_alone, strict=True)
    ]
    close(weighted, halfway, 1e-12)


def test_a_turn_whose_normalised_reward_is_zero_is_still_discounted():
    """Disagreement 12: the released code finds turns by "not zero" and merges this one with the next."""
    advantages = run("igpo", group(CASES["exact_zeros"]["g0"]), gamma=0.9)
    assert advantages[1][0] == pytest.approx(0.9 * advantages[1][1], abs=1e-6)
    assert advantages[1][0] != pytest.approx(advantages[1][1], abs=1e-3)


OUTCOME_ONLY = ["grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "gigpo"]


@pytest.mark.parametrize("method", OUTCOME_ONLY)
def test_methods_of_the_outcome_ignore_step_rewards(method):
    """Disagreement 3: the released GRPO script trains with information gain; outcome only must mean that."""
    without = [replace(t, rewards=[0.0] * (len(t.rewards) - 1) + [t.rewards[-1]]) for t in ragged()]
    assert run(method, ragged()) == run(method, without)


@pytest.mark.parametrize("std", ["population", "sample"])
def test_igpo_without_gains_is_grpo_to_the_bit(std):
    params = SimpleNamespace(**DEFAULTS | {"gain_weight": 0.0, "std": std})
    values, expected = METHODS["igpo"](ragged(), params), METHODS["grpo"](ragged(), params)
    assert repr(values) == repr(expected)


def test_igpo_without_the_outcome_leaves_the_answer_without_advantage():
    advantages = run("igpo", ragged(), outcome_weight=0.0)
    assert [row[-1] for row in advantages] == [0.0] * len(advantages)
    gains = [row[:-1] for row in run("igpo", ragged())]
    outcomes = [row[-1] for row in run("igpo", ragged())]
    expected = [[v - outcome for v in row] for row, outcome in zip(gains, outcomes, strict=True)]
    close([row[:-1] for row in advantages], expected)


@every_variant
def test_the_order_of_trajectories_does_not_matter(method, chosen):
    batch = ragged()
    order = random.Random(0).sample(range(len(batch)), len(batch))
    expected = run(method, batch, gamma=0.9, lam=0.8, **chosen)
    advantages = run(method, [batch[i] for i in order], gamma=0.9, lam=0.8, **chosen)
    close(advantages, [expected[i] for i in order], 1e-12)


def moved(batch: list[Rewards], scale: float, shift: float) -> list[Rewards]:
    """All rewards scaled and shifted; a critic's values are in the unit of the rewards."""
    return [
        replace(
            t,
            rewards=[scale * reward + shift for reward in t.rewards],
            values=[scale * value for value in t.values],
        )
        for t in batch
    ]


@every_variant
def test_a_shift_of_all_outcomes_changes_nothing(method, chosen):
    """Of all rewards, where they are normalised jointly."""
    batch = [replace(t, rewards=[*t.rewards[:-1], t.rewards[-1] + 2]) for t in ragged()]
    if chosen.get("normalisation") == "joint":
        batch = moved(ragged(), 1.0, 2.0)
    close(run(method, batch, **chosen), run(method, ragged(), **chosen), 2e-5)


@every_variant
def test_a_scale_of_all_rewards_scales_what_is_not_divided_by_a_deviation(method, chosen):
    factor, batch = 3.0 if method in ("dr_grpo", "rloo") else 1.0, ragged() * 2  # so no turn is alone
    expected = [[factor * value for value in row] for row in run(method, batch, gamma=0.9, **chosen)]
    close(run(method, moved(batch, 3.0, 0.0), gamma=0.9, **chosen), expected, 4e-5)


@pytest.mark.parametrize(
    ("method", "chosen"), [("igpo", {}), ("igpo", {"scope": "group_turn"}), ("a2tgpo", {})], ids=str
)
def test_gains_and_outcomes_have_scales_of_their_own(method, chosen):
    batch = [replace(t, rewards=[*(5 * r - 1 for r in t.rewards[:-1]), t.rewards[-1]]) for t in ragged()]
    close(run(method, batch, **chosen), run(method, ragged(), **chosen), 2e-5)


@every_variant
def test_no_spread_gives_exactly_zero(method, chosen):
    """Disagreement 5: in single precision the code divides rounding errors of such a group by its floor."""
    assert run(method, group([[0.1]] * 16), **chosen) == [[0.0]] * 16


@every_variant
def test_identical_trajectories_have_identical_credits(method, chosen):
    rows = run(method, group([[0.3, -0.1, 1.0]] * 3), gamma=0.9, lam=0.8, **chosen)
    assert rows == [rows[0]] * 3


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITH_CRITIC])
def test_equal_rewards_give_exactly_zero_where_turns_are_compared_with_their_like(method):
    assert run(method, group([[0.3, 0.3, 0.3]] * 3), scope="group_turn") == [[0.0] * 3] * 3


@every_variant
def test_a_trajectory_alone_in_its_batch_has_nothing_to_compare_with(method, chosen):
    assert run(method, [ALONE], **chosen) == [[0.0]]


@every_variant_by_group
def test_a_trajectory_alone_in_its_group_has_nothing_to_compare_with(method, chosen):
    assert run(method, [*ragged(), ALONE], **chosen)[-1] == [0.0]


@every_variant_by_group
def test_groups_do_not_mix(method, chosen):
    both = run(method, ragged(), **chosen)
    assert both[:4] == run(method, ragged()[:4], **chosen)
    assert both[4:] == run(method, ragged()[4:], **chosen)


@pytest.mark.parametrize("method", OVER_THE_BATCH)
def test_whitening_counts_every_token_once(method):
    """A turn of n tokens weighs as n turns of one token would: mean 0 and variance 1 over tokens."""
    batch = ragged()
    values = [
        value
        for row, t in zip(run(method, batch), batch, strict=True)
        for value, count in zip(row, t.tokens, strict=True)
        for _ in range(count)
    ]
    assert sum(values) == pytest.approx(0.0, abs=1e-9)
    assert sum(value**2 for value in values) / (len(values) - 1) == pytest.approx(1.0, abs=1e-6)


def test_reinforce_pp_discounts_the_outcome_by_turn():
    advantages = run(
        "reinforce_pp", group([[9.0, 1.0], [0.0]]), gamma=0.5
    )  # returns 0.5, 1 and 0, two tokens each
    assert advantages[0][0] == pytest.approx(0.0, abs=1e-12)
    assert advantages[0][1] == pytest.approx(0.5 / 0.2**0.5, abs=1e-6)
    assert advantages[1] == [-advantages[0][1]]


def test_gigpo_compares_turns_in_the_same_state_only():
    batch = [
        Rewards("g", [0.0, 1.0], [1, 1], ["q", "q a"]),
        Rewards("g", [0.0, 0.0], [1, 1], ["q", "q b"]),
    ]
    assert run("gigpo", batch, std="none") == [[1.0, 0.5], [-1.0, -0.5]]
    assert run("gigpo", batch, std="none", omega=0.0) == [[0.5, 0.5], [-0.5, -0.5]]


def test_the_golden_values_are_those_that_their_script_makes():
    for key, groups in make_golden.made().items():
        for name, rows in groups.items():
            expected = [value for row in EXPECTED[key][name] for value in row]
            assert [value for row in rows for value in row] == pytest.approx(expected, abs=2e-6), key
