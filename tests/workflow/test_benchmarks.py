"""What the benchmarks read from a finished run."""

import re
from pathlib import Path

import pytest
import results_tree
from results_tree import write_cost

from benchmarks import checks, seeds
from benchmarks.pages.finished_run import covered, rows
from pipeline.errors import UserError

END = 1000.0


def test_work_and_start_of_the_engine_come_from_costs(tmp_path):
    folder = tmp_path / "runs/igpo/s1/001"
    write_cost(folder / "rollout.cost.json", 80, END, phases={"engine": 10.0, "turns": 60.0})
    write_cost(folder / "score.cost.json", 40, END + 40, phases={"passes": 20.0})
    write_cost(folder / "train.cost.json", 40, END + 80, phases={"passes": 10.0, "optimiser": 2.0})
    write_cost(tmp_path / "coverage.cost.json", 30, END + 25)  # 5 s beside the rollouts, 5 s beside scoring
    write_cost(tmp_path / "benchmarks/model/model.cost.json", 20, END + 5000)  # a benchmark's own
    values = {row.what: row.values for row in rows(tmp_path, weights=10**9, peak=10**10)}
    assert values["wall time from the first stage to the last, minutes"] == pytest.approx([160 / 60])
    saved = (20 - 5 * 2 / 10) + (10 - 5 * 6 / 10)  # 5 tokens, 2 and 6 operations per weight
    at_peak = values["the same if all passes of scoring and training ran at the matmul peak"]
    assert at_peak == pytest.approx([(160 - saved) / 60])
    assert values["share of it in neither model nor search work"] == pytest.approx([1 - 112 / 160])
    assert values["start of the engine in an iteration, s"] == pytest.approx([10.0])
    assert values["its share of the rollout stage"] == pytest.approx([10 / 80])
    assert values["its share of the iteration"] == pytest.approx([10 / 160])


def test_time_side_by_side_counts_once():
    assert covered([(0, 10), (2, 5), (8, 12), (20, 21)]) == 13


def test_a_page_has_the_table_its_settings_its_time_and_its_commands(params, tmp_path):
    table = "## Ours\n\n| a |\n"
    (tmp_path / "results/tables").mkdir(parents=True)
    (tmp_path / "results/tables/gamma.md").write_text(table)
    write_cost(tmp_path / "results/runs/gamma_05/s1/001/score.cost.json", 35, END + 40)
    write_cost(tmp_path / "results/evaluations/dev/igpo_s1/rollout.cost.json", 75, END + 125)
    for arm in ("igpo", "gamma_05"):  # of the default run, and its copy
        write_cost(tmp_path / f"results/runs/{arm}/s1/001/rollout.cost.json", 35, END - 1000)
    params["run"] |= {"seeds": [1, 2], "iterations": 3}
    text = checks.page(params, "gamma", tmp_path, [])
    assert text.endswith(f"\n\n{table}")
    assert "Seeds 1, 2; 3 updates" in text
    assert "this took 2.0 minutes" in text  # from 5 s after END to 125 s after it
    assert "`snakemake --cores all tables/gamma` after the default run" in text
    assert "`python -m benchmarks.checks gamma`" in text
    text = checks.page(params, "gamma", tmp_path, [Path("my.yaml")])
    assert "tables/gamma --configfile my.yaml`" in text
    assert "checks gamma --params params.yaml --params my.yaml`" in text


def test_a_page_of_no_table_says_how_to_make_it(params, tmp_path):
    with pytest.raises(UserError, match=r"collapse\.md: no such file; make it first: .*tables/collapse"):
        checks.page(params, "collapse", tmp_path, [])


def test_a_page_of_seeds_compares_each_with_the_warm_start_and_shows_its_dev_curve(params, tmp_path):
    results_tree.write_results(tmp_path / "results")
    results_tree.write_validations(tmp_path / "results")
    params["run"] |= {"arms": ["igpo"], "baselines": ["closed_book"], "seeds": [1, 2], "iterations": 2}
    params["run"] |= {"validate_every": 2, "select": "last"}
    text, figure = seeds.page(params, tmp_path, "seeds", "make tables`, then more")
    lines = text.splitlines()
    first, second = (next(line for line in lines if line.startswith(f"| igpo   |    {n} |")) for n in (1, 2))
    assert "50.0 | +10.0 |" in first
    assert "70.0 | +30.0 |" in second
    assert any(re.match(r"\| igpo +\| 60\.0 ± ", line) for line in lines)
    assert any(line.startswith("| igpo   |  all | 60.0 | +20.0 |") for line in lines)
    dev = lines[lines.index("## Dev curves") :]
    assert sum("20.0 |" in line and "60.0 |" in line for line in dev) == 2  # before and after
    assert figure.startswith("<svg")


def test_a_page_of_seeds_of_an_unfinished_run_says_how_to_make_it(params, tmp_path):
    with pytest.raises(UserError, match=r"no metrics\.json; make it first: make tables"):
        seeds.page(params, tmp_path, "seeds", "make tables`, then more")
