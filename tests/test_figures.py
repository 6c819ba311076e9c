"""The figures' target."""

from pathlib import Path

import pytest
from test_dag import plans

from retrieval.params import read_params


@pytest.mark.slow
def test_the_figures_are_a_target_of_the_iterations_alone(tmp_path):
    run = read_params([Path(__file__).parents[1] / "params.yaml"])["run"]
    rules = plans(tmp_path, "figures")
    assert rules["figures"] == 1
    assert rules["train"] == rules["health"] == len(run["arms"]) * run["iterations"]
    assert "evaluation_rollout" not in rules
