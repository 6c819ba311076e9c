"""Where runs, evaluations and validations lie, and which policies are kept."""

import pytest

from igpo.experiment import layout


def test_runs_and_evaluations_follow_the_parameters(params):
    run = {"arms": ["a", "b"], "baselines": ["rag"], "seeds": [1, 5], "iterations": 3, "select": "last"}
    assert layout.iterations(run)[3:5] == ["results/runs/a/s5/001", "results/runs/a/s5/002"]
    evaluations = layout.evaluations(run)
    assert list(evaluations) == ["rag", "warmup", "a_s1", "a_s5", "b_s1", "b_s5"]
    assert evaluations["b_s5"] == ("b", "results/runs/b/s5/003")
    assert list(layout.evaluations({**run, "iterations": 0})) == ["rag", "warmup"]


def test_a_second_choice_of_policies_has_rows_of_its_own(params):
    run = {"arms": ["a"], "baselines": [], "seeds": [1, 5], "iterations": 3, "select": ["best_dev", "last"]}
    assert layout.evaluations(run) == {
        "warmup": (None, "results/warmup"),
        "a_s1": ("a", "results/runs/a/s1/best"),
        "a_s5": ("a", "results/runs/a/s5/best"),
        "a_last_s1": ("a", "results/runs/a/s1/003"),
        "a_last_s5": ("a", "results/runs/a/s5/003"),
    }
    params["run"] |= run
    params["arms"]["a"] = {}
    params["tables"]["ablation"] = {"baseline": "a", "rows": {"a": None}}
    assert list(layout.compared(params, "ablation")) == ["warmup", "a_s1", "a_s5"], "of the first alone"


@pytest.mark.parametrize(
    ("every", "iterations", "ks"),
    [(2, 6, [0, 2, 4, 6]), (2, 5, [0, 2, 4, 5]), (9, 2, [0, 2]), (0, 4, []), (1, 0, [])],
)
def test_a_run_is_validated_before_it_on_its_way_and_at_its_end(every, iterations, ks):
    assert layout.validated({"validate_every": every, "iterations": iterations}) == ks


def test_arms_that_are_evaluated_alike_share_the_warm_start_s_validation(params):
    params["run"] |= {"arms": ["igpo", "wide"], "seeds": [1, 2], "iterations": 2, "validate_every": 2}
    params["arms"]["wide"] = {"rollout": {"k": 3}}
    ends = [f"results/runs/{arm}/s{seed}/002/validation" for arm in ("igpo", "wide") for seed in (1, 2)]
    own = [f"results/runs/wide/s{seed}/000/validation" for seed in (1, 2)]
    assert set(layout.validations(params)) == {"results/warmup/validation", *ends, *own}
    assert layout.validations(params, ["igpo"]) == ["results/warmup/validation", *ends[:2]]
    settings = layout.validation_settings(params, "wide")
    assert (settings["k"], settings["temperature"], settings["samples"]) == (3, 0.0, 1)
    assert settings["questions"] == params["run"]["validation_questions"]


@pytest.mark.parametrize(
    ("keep", "select", "ks", "best"),
    [
        (["last", "best"], "last", [5], True),
        ("best", "last", [5], True),  # what is evaluated is kept
        ("last", "best_dev", [5], True),
        ("last", "last", [5], False),
        ([2, "last"], "last", [2, 4, 5], False),
        (2, "best_dev", [2, 4], True),
        ("all", "last", [1, 2, 3, 4, 5], True),
        ([], "last", [5], False),
    ],
)
def test_policies_are_kept_as_the_parameters_say(keep, select, ks, best):
    run = {"arms": ["a"], "seeds": [1], "iterations": 5, "validate_every": 2}
    run |= {"keep_policies": keep, "select": select}
    assert layout.kept(run) == ks
    assert layout.best_policies(run) == (["results/runs/a/s1/best"] if best else [])
    assert layout.best_policies({**run, "validate_every": 0, "select": "last"}) == []


def test_the_chain_of_best_policies_goes_on_where_iterations_are_raised():
    run = {"validate_every": 2, "iterations": 5}
    assert [layout.best_before(run, k) for k in (2, 4, 5)] == [0, 2, 4]
    more = {**run, "iterations": 8}
    assert [layout.best_before(more, k) for k in (4, 6, 8)] == [2, 4, 6]
