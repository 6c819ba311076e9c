"""Which questions an iteration asks."""

from types import SimpleNamespace

import pytest

from igpo.rollout import choose_questions
from pipeline.errors import UserError

NAMES = [(name, f"{name}{number}") for name in ("nq", "hotpotqa") for number in range(5)]
QUESTIONS = [
    {
        "question_id": question_id,
        "benchmark": benchmark,
        "type": "rare" if question_id[-1] == "4" else "common",
    }
    for benchmark, question_id in NAMES
]


def chosen(
    iteration: int, benchmarks: list[str], number: int | None, seed: int = 1, by_type: bool = False
) -> list[str]:
    params = SimpleNamespace(benchmarks=benchmarks, questions=number, by_type=by_type)
    return [question["question_id"] for question in choose_questions(QUESTIONS, params, seed, iteration)]


def test_iterations_share_no_question_until_all_were_asked():
    first, second, third = (chosen(iteration, ["nq"], 2) for iteration in (1, 2, 3))
    assert first == sorted(first)
    assert set(first) | set(second) < {f"nq{number}" for number in range(5)}
    assert len({*first, *second}) == 4
    assert set(third) - {*first, *second}
    assert set(third) & {*first, *second}


def test_another_seed_asks_others_and_null_asks_all():
    assert chosen(1, [], 3, seed=1) != chosen(1, [], 3, seed=2)
    assert chosen(1, [], None) == chosen(2, [], None) == sorted(q["question_id"] for q in QUESTIONS)


@pytest.mark.parametrize("seed", range(5))
def test_by_type_a_rare_type_is_asked_as_often_while_it_has_questions(seed):
    assert sum(name.endswith("4") for name in chosen(1, [], 4, seed, by_type=True)) == 2
    assert chosen(1, [], None, seed, by_type=True) == chosen(1, [], None)


def test_an_unknown_benchmark_is_one_error_with_the_nearest_name():
    message = r"rollout\.benchmarks: no questions of 'hotpotq'; nearest: 'hotpotqa'"
    with pytest.raises(UserError, match=message):
        chosen(1, ["nq", "hotpotq"], 2)
