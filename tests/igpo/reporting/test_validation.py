"""Dev columns of curves, and what draws them."""

import csv

import pytest
import results_tree

from igpo import tables, track
from igpo.reporting import plots, validation
from igpo.reporting.curves import curve_rows
from pipeline import storage
from pipeline.errors import UserError


@pytest.fixture
def iterations(tmp_path):
    return results_tree.write_results(tmp_path / "results")[1]


@pytest.fixture
def validations(tmp_path):
    return results_tree.write_validations(tmp_path / "results")


def test_a_policy_s_dev_values_stand_where_it_acts_and_the_last_one_s_in_a_row_of_their_own(
    iterations, validations
):
    rows = curve_rows(iterations, validations)
    assert [(row["seed"], row["iteration"], row["updates"]) for row in rows] == [
        (seed, k, k - 1) for seed in (1, 2) for k in (1, 2, 3)
    ]
    first, second, end = rows[:3]
    assert (first["dev_f1"], first["dev_f1_low"], first["dev_f1_high"]) == pytest.approx((0.2, 0.1, 0.3))
    assert (first["dev_f1_1hop"], first["dev_f1_2hop"], first["dev_n"]) == (0.3, 0.1, 8)
    assert first["f1"] == pytest.approx(0.4)  # of its training trajectories, as before
    assert not set(validation.DEV) & set(second), "not validated after one update"
    assert (end["dev_f1"], end["dev_f1_1hop"], end["dev_f1_2hop"]) == (0.6, 0.6, None)
    assert end["policy_sha256"] == "end-1"
    assert set(end) == {"arm", "seed", "iteration", "updates", "policy_sha256", *validation.DEV}
    assert validation.of_iterations(rows) == [row for row in rows if row["iteration"] < 3]


def test_without_validations_curves_have_no_further_rows_and_no_dev_figure(iterations):
    rows = curve_rows(iterations)
    assert len(rows) == len(iterations)
    assert set(plots.drawings(rows)) == set(plots.FIGURES) - {"dev"}


def test_a_start_of_an_arm_s_own_goes_before_the_shared_one(tmp_path, iterations, validations):
    own = results_tree.write_validation(tmp_path / "results", "runs/igpo/s2/000", 0.9, {})
    rows = curve_rows(iterations, [*validations, own])
    assert [row["dev_f1"] for row in rows if row["updates"] == 0] == [0.2, 0.9]


def test_the_dev_figure_has_a_line_an_arm_and_its_interval(iterations, validations):
    rows = curve_rows(iterations, validations)
    drawn = {name: drawing.svg() for name, drawing in plots.drawings(rows).items()}
    assert list(drawn) == list(plots.FIGURES), "the dev figure is the first"
    assert "updates so far" in drawn["dev"] and "FillBetweenPolyCollection" in drawn["dev"]
    assert "FillBetweenPolyCollection" not in drawn["training"]
    assert "igpo s1 iteration 3: policy end-1" in drawn["dev"]
    assert "iteration 3" not in drawn["training"]
    assert {name: drawing.svg() for name, drawing in plots.drawings(rows).items()} == drawn


CHECKS = {
    "gamma": {"baseline": "warmup", "rows": {"igpo": None}},
    "single_turn": {"baseline": "warmup", "rows": {"igpo": None}},
    "collapse": ["igpo"],
}


def test_curves_csv_has_the_columns_whether_or_not_a_run_is_validated(tmp_path, iterations, validations):
    for folders in ([], validations):
        tables_of_paper = ("algorithms", "ablation", "basis", "per_question")
        compared = {name: {"baseline": "warmup", "rows": {"igpo": "IGPO"}} for name in tables_of_paper}
        config = results_tree.config(
            baseline="warmup", metric="f1", bootstrap=10, seed=0, **compared, **CHECKS
        )
        evaluation = results_tree.write_evaluation(
            tmp_path / "results", "warmup", {"vitalqa": results_tree.block(0.4)}, 0
        )
        tables.main(
            results_tree.command([evaluation], iterations, *folders, config=config, out=tmp_path / "out")
        )
        with (tmp_path / "out/curves.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert set(validation.DEV) < set(rows[0])
        assert [row["dev_f1"] for row in rows][:3] == (["0.2", "", "0.6"] if folders else ["", "", ""])


def test_mlflow_has_dev_metrics_by_updates(iterations, validations):
    points = track.collect([], iterations, validations)["igpo_s1"]
    assert {step: value for (name, step), value in points.items() if name == "dev/f1"} == {0: 0.2, 2: 0.6}
    assert points["dev/f1_2hop", 0] == 0.1
    assert ("train/f1", 2) in points and ("train/f1", 3) not in points
    assert not {name for name, _ in points if name.startswith("train/dev") or name == "train/updates"}


def test_metrics_from_before_hops_are_named(tmp_path, iterations):
    folder = tmp_path / "results/warmup/validation"
    storage.write_json({"overall": results_tree.block(0.2), "provenance": {}}, folder / "metrics.json")
    with pytest.raises(UserError, match=r"metrics\.json: has no 'hops'; evaluate again"):
        curve_rows(iterations, [folder])
