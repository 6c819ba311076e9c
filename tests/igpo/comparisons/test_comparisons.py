"""The paper's comparisons: ours above the published rows, questions better and worse, time by phase."""

import re
from types import SimpleNamespace

import pytest
import results_tree

from igpo.comparisons import comparison, per_question, time_by_phase
from igpo.reporting import published
from igpo.reporting.measured import cost_path

PARAMS, CONFIG = SimpleNamespace(**results_tree.TABLES), results_tree.TABLES_CONFIG


def test_published_tables_agree_with_the_papers_averages():
    for table in ("algorithms", "ablation", "basis"):
        rows = published.read(table)
        assert len(rows) == 6
        for row in rows:
            cells = [float(value) for name, value in row.items() if name not in ("method", "model", "avg")]
            assert len(cells) == 7
            assert sum(cells) / 7 == pytest.approx(float(row["avg"]), abs=0.051)
    for row in published.read("per_question"):
        assert sum(float(row[name]) for name in per_question.SHARES) == pytest.approx(100, abs=0.11)
    assert sum(float(row["share"]) for row in published.read("time")) == pytest.approx(100)


def test_a_comparison_stands_above_the_published_rows_and_says_where_it_comes_from(made, tmp_path):
    options = results_tree.command(made[0][1:], [], config=CONFIG, out=tmp_path, table="algorithms")
    comparison.main(options[: options.index("--iterations")])
    text = re.sub(" +", " ", (tmp_path / "algorithms.md").read_text())
    ours, theirs = text.split("## Published by the paper")
    assert "| igpo (IGPO) | 60.0 ± 14.1 [50.0, 70.0] | +20.0 [+10.0, +30.0] | 0.000 |" in ours
    assert (
        "| igpo (IGPO) | igpo | 1 2 | 2 2 | vitalqa:4 | abababababab | igpo_s1 policy igpo_s2 policy |"
        in ours
    )
    assert "| GRPO | 40.3 |" in theirs
    assert "Table 2" in theirs and "60.0" not in theirs
    rows = results_tree.read_csv(tmp_path / "algorithms.csv")
    assert [(row["source"], row["published_row"]) for row in rows[:2]] == [("ours", ""), ("ours", "IGPO")]
    assert {row["source"] for row in rows[2:]} == {"published"}
    assert {row["printed_in"] for row in rows[2:]} == {"arXiv:2510.14967v2, Table 2"}
    tex = (tmp_path / "algorithms.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3


def test_published_rows_of_several_models_are_told_apart():
    methods = dict.fromkeys(row["method"] for row in published.f1_rows("ablation"))
    assert next(iter(methods)) == "F1 (Qwen2.5-3B-Instruct)"
    assert len(methods) == 6


def test_questions_better_equal_worse_by_hand():
    shares = per_question.shares([0.5, 1.0, 0.2, 0.1 + 0.2], [0.5, 0.0, 0.4, 0.3])
    assert shares == pytest.approx({"better": 0.25, "equal": 0.5, "worse": 0.25, "mean_difference": 0.2})


def test_the_table_of_questions(made, tmp_path):
    options = results_tree.command(made[0][1:], [], config=CONFIG, out=tmp_path)
    per_question.main(options[: options.index("--iterations")])
    ours = results_tree.read_csv(tmp_path / "per_question.csv")[0]
    assert [float(ours[name]) for name in per_question.SHARES] == [1.0, 0.0, 0.0]
    assert (ours["seed_names"], ours["baseline_policy_sha256"]) == ("1 2", "warmup policy")
    assert (ours["protocol"], ours["metric"]) == ("igpo", "f1")
    text = re.sub(" +", " ", (tmp_path / "per_question.md").read_text())
    assert "| igpo against warm start | vitalqa | 100.0 | 0.0 | 0.0 |" in text
    assert "| IGPO against GRPO | musique | 71.2 | 25.4 | 3.4 |" in text


def timed(folders, out):
    """Rows of the table of time for iterations whose stages took so many seconds, and its text."""
    for folder in folders:
        for phase, seconds in {"rollout": 6, "score": 1, "train": 3, "critic": 2}.items():
            device = "2 x Abacus" if phase == "train" else None
            results_tree.write_cost(cost_path(folder, phase), seconds, device=device)
    time_by_phase.main(["--iterations", *map(str, folders), "--out", str(out)])
    return results_tree.read_csv(out / "time.csv"), re.sub(" +", " ", (out / "time.md").read_text())


def test_time_by_phase_adds_up_costs(made, tmp_path):
    rows, text = timed(made[1], tmp_path)
    assert "| igpo | 60.0 | 10.0 | 30.0 | 40 | 4 | 1 2 |" in text
    assert "| IGPO | 82.6 | 4.8 | 12.6 | – | – | – |" in text
    assert "| igpo | 1 2 | igpo-2 igpo-2 | 2 x Abacus |" in text
    assert rows[0]["policy_sha256"] == "igpo-2 igpo-2"
    assert {row["phase"]: row["device"] for row in rows if row["method"] == "igpo"} == {
        "rollout": "",
        "score": "",
        "train": "2 x Abacus",
    }
    assert rows[-1]["printed_in"] == "arXiv:2510.14967v2, Table 7"


def test_a_critic_takes_its_share_of_the_time(made, tmp_path):
    critic = results_tree.write_iteration(tmp_path / "results", "ppo", 1, 1, 0.4)
    (critic / "values.parquet").touch()
    _, text = timed([*made[1], critic], tmp_path)
    assert "| igpo | 60.0 | 10.0 | 30.0 | – | 40 | 4 | 1 2 |" in text
    assert "| ppo | 50.0 | 8.3 | 25.0 | 16.7 | 12 | 1 | 1 |" in text


def test_a_missing_cost_is_named(tmp_path, capsys):
    folder = results_tree.write_iteration(tmp_path / "results", "igpo", 1, 1, f1=0.5)
    with pytest.raises(SystemExit) as end:
        time_by_phase.main(["--iterations", str(folder), "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "rollout.cost.json: no such file; snakemake --forcerun rollout" in capsys.readouterr().err
