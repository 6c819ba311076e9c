"""What the benchmarks read from a finished run."""

import os
import re
from datetime import datetime
from pathlib import Path

import pytest
import results_tree

from benchmarks import checks, seeds
from benchmarks.finished_run import covered, rows
from pipeline.errors import UserError

END = datetime(2026, 1, 1, 0, 1, 0).timestamp()  # a minute after midnight

ROLLOUT = """\
23:59:50 starting vllm with results/warmup
00:00:00 turn 1 of 3: 16 trajectories
00:00:10 turn 2 of 3: 15 trajectories
igpo.rollout: 16 trajectories, 35 turns, 11 answered (75.0 s)
"""
SCORE = """\
00:01:10 scored 1000 of 2000 tokens, 90 tokens/s
00:01:20 scored 2000 of 2000 tokens, 100 tokens/s
igpo.score: 51 turns, mean information gain +0.916 (35.0 s)
"""
COVERAGE = "retrieval.coverage: 600 questions, 0 uncovered (30.0 s)\n"


def write(path, text, end):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (end, end))


def test_work_and_start_of_the_engine_come_from_the_logs(tmp_path):
    folder = tmp_path / "runs/igpo/s1/001"
    write(folder / "rollout.log", ROLLOUT, END)  # work: the last 60 s of 75
    write(folder / "score.log", SCORE, END + 40)  # the last 20 s of 35
    write(
        tmp_path / "coverage.log", COVERAGE, END + 25
    )  # 30 s, of which 5 beside the rollouts, 5 beside scoring
    for name, seconds in (("rollout", 80), ("score", 40), ("train", 40)):
        path = tmp_path / "benchmark/runs/igpo/s1/001" / f"{name}.tsv"
        write(path, f"s\th:m:s\n{seconds}.0\t0:01:00\n", END)
    found = {row.what: row.values for row in rows(tmp_path)}
    assert found["wall time from the first stage to the last, minutes"] == pytest.approx([115 / 60])
    assert found["share of it in neither model nor search work"] == pytest.approx([1 - 100 / 115])
    assert found["start of the engine in an iteration, s"] == pytest.approx([10.0])
    assert found["its share of the rollout stage"] == pytest.approx([10 / 80])
    assert found["its share of the iteration"] == pytest.approx([10 / 160])


def test_time_side_by_side_counts_once():
    assert covered([(0, 10), (2, 5), (8, 12), (20, 21)]) == 13


def test_a_page_has_the_table_its_settings_its_time_and_its_commands(params, tmp_path):
    table = "## Ours\n\n| a |\n"
    (tmp_path / "results/tables").mkdir(parents=True)
    (tmp_path / "results/tables/gamma.md").write_text(table)
    write(tmp_path / "logs/runs/gamma_05/s1/001/score.log", SCORE, END + 40)  # 35 s
    write(tmp_path / "logs/evaluations/dev/igpo_s1/rollout.log", ROLLOUT, END + 125)  # 75 s
    write(tmp_path / "logs/runs/igpo/s1/001/score.log", SCORE, END - 1000)  # of the default run
    params["run"] |= {"seeds": [1, 2], "iterations": 3}
    text = checks.page(params, "gamma", tmp_path, [])
    assert text.endswith(f"\n\n{table}")
    assert "Seeds 1, 2; 3 updates" in text
    assert "that took 2.0 minutes" in text  # from 5 s after END to 125 s after it
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
    text, figure = seeds.page(params, tmp_path)
    lines = text.splitlines()
    first, second = (next(line for line in lines if line.startswith(f"| igpo   |    {n} |")) for n in (1, 2))
    assert "50.0 | +10.0 |" in first
    assert "70.0 | +30.0 |" in second
    assert any(re.match(r"\| igpo +\| 60\.0 ± ", line) for line in lines)
    assert sum("20.0 |" in line and "60.0 |" in line for line in lines) == 2  # dev F1 before and after
    assert figure.startswith("<svg")


def test_a_page_of_seeds_of_an_unfinished_run_says_how_to_make_it(params, tmp_path):
    with pytest.raises(UserError, match=r"no metrics\.json; make it first: make tables CONFIG="):
        seeds.page(params, tmp_path)
