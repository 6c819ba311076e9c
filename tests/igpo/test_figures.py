"""Figures, the data behind them, and their target."""

import pandas as pd
import pytest
import results_tree
from dry_run import plans
from root import PARAMS_FILE

from igpo import figures
from igpo.reporting import plots, published
from igpo.reporting.curves import curve_row
from pipeline.settings import read_params


@pytest.mark.slow
def test_the_figures_are_a_target_of_the_iterations_alone(tmp_path):
    run = read_params([PARAMS_FILE])["run"]
    rules = plans(tmp_path, "figures")
    assert rules["figures"] == 1
    assert rules["train"] == rules["health"] == len(run["arms"]) * run["iterations"]
    assert "evaluation_rollout" not in rules


def test_figures_are_drawn_against_the_tokens_that_made_a_policy(made, tmp_path):
    rows = plots.with_derived(pd.DataFrame([curve_row(folder) for folder in made[1]]))
    assert list(rows["tokens_used"]) == [0, 50, 0, 100]
    assert list(rows["gold_entropy_reduction"]) == [0.5] * 4
    outputs = []
    for out in (tmp_path / "one", tmp_path / "two"):
        dev = ["--validations", *map(str, results_tree.write_validations(tmp_path / "results"))]
        figures.main(["--iterations", *map(str, made[1]), *dev, "--out", str(out)])
        outputs.append({path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {f"{name}.{form}" for name in plots.FIGURES for form in figures.FORMS}
    assert outputs[0]["dev.pdf"].startswith(b"%PDF") and outputs[0]["dev.png"].startswith(b"\x89PNG")
    assert "igpo s2 iteration 1: policy igpo-0" in outputs[0]["training.svg"].decode()
    for name, (_, x, panels) in plots.FIGURES.items():
        text = outputs[0][f"{name}.svg"].decode()
        assert all(f">{words}</text>" in text for words in (plots.X_LABELS[x], "igpo", *panels.values()))


def test_a_panel_without_values_says_so():
    """An experiment of questions of two hops has no curve of one hop."""
    common = {"arm": "igpo", "seed": 1, "policy_sha256": None, "dev_f1_1hop": None}
    rows = [common | {"iteration": n, "updates": n, "dev_f1": 0.5, "dev_f1_2hop": 0.5} for n in (0, 2)]
    panels = plots.FIGURES["dev"][2]
    assert plots.draw("dev", rows).svg().count("no values") == len(panels) - 2


def test_points_of_the_papers_curves_lie_in_their_order():
    heads, start, *ends = published.curves()
    assert len(heads) == 8 and len(ends) == 6
    for best, last in zip(ends[::2], ends[1::2], strict=True):
        for low, end, high in zip(start[1:], last[1:], best[1:], strict=True):
            assert float(low) < float(end) <= float(high)
