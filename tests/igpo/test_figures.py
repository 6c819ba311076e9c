"""The figures' target."""

import pytest
from dry_run import plans
from root import PARAMS_FILE

from pipeline.settings import read_params


@pytest.mark.slow
def test_the_figures_are_a_target_of_the_iterations_alone(tmp_path):
    run = read_params([PARAMS_FILE])["run"]
    rules = plans(tmp_path, "figures")
    assert rules["figures"] == 1
    assert rules["train"] == rules["health"] == len(run["arms"]) * run["iterations"]
    assert "evaluation_rollout" not in rules
