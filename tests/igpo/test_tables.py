"""Tables, page and trajectory printer: numbers in their cells, ours and published apart, equal bytes."""

import json
import re
from types import SimpleNamespace

import pytest
import results_tree
import yaml

from igpo import evaluate, report, tables
from igpo.experiment import schema
from igpo.reporting import published
from igpo.reporting.curves import curve_row
from igpo.reporting.results import read_evaluation, table_rows
from igpo.reporting.validation import run_of
from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings import SCHEMA

PARAMS, CONFIG = SimpleNamespace(**results_tree.TABLES), results_tree.TABLES_CONFIG


def test_seeds_become_mean_std_and_an_interval_over_both(made, tmp_path):
    results_tree.tables_of(made, tmp_path / "out")
    rows = {
        row["method"]: row
        for row in results_tree.read_csv(tmp_path / "out/main.csv")
        if row["source"] == "ours"
    }
    assert list(rows) == ["closed_book", "warmup", "igpo"]
    igpo = rows["igpo"]
    assert (igpo["seeds"], igpo["n"]) == ("2", "4")
    assert [float(igpo[f"f1{end}"]) for end in ("", "_low", "_high")] == pytest.approx([0.6, 0.5, 0.7])
    assert float(igpo["f1_std"]) == pytest.approx(0.141421)  # of 0.5 and 0.7, n - 1 = 1
    assert float(igpo["f1_difference"]) == pytest.approx(0.5)
    assert rows["warmup"]["f1_std"] == ""


def test_differences_are_paired_by_question_and_hold_the_spread_over_seeds(made, tmp_path):
    results_tree.tables_of(made, tmp_path / "out")
    rows = {
        row["method"]: row
        for row in results_tree.read_csv(tmp_path / "out/main.csv")
        if row["source"] == "ours"
    }
    cells = [float(rows["igpo"][f"f1_difference_{name}"]) for name in ("low", "high", "p")]
    assert cells == pytest.approx([0.4, 0.6, 0.0])  # from both draws 0.5 - 0.1 to both draws 0.7 - 0.1
    assert rows["closed_book"]["f1_difference_p"] == "1"


def test_rows_say_what_they_were_made_from_and_split_by_coverage(made, tmp_path):
    results_tree.tables_of(made, tmp_path / "out")
    row = next(row for row in results_tree.read_csv(tmp_path / "out/main.csv") if row["method"] == "igpo")
    assert row["seed_names"] == "1 2"
    assert row["questions_sha256"] == "ab" * 32
    assert row["policy_sha256"] == "igpo_s1 policy igpo_s2 policy"
    assert (row["protocol"], row["code"], row["metric"]) == ("igpo", "evaluate:2b rollout:1a", "f1")
    assert (row["n_covered"], row["n_uncovered"]) == ("3", "1")
    assert float(row["f1_covered"]) == pytest.approx(0.6)


def test_rows_say_which_iteration_was_taken_and_by_what(made, tmp_path):
    for path, iteration in zip(made[0][2:], (2, 1), strict=True):
        metrics = storage.read_json(path)
        metrics["provenance"] |= {"iteration": iteration, "selected": "best_dev"}
        storage.write_json(metrics, path)
    text = results_tree.tables_of(made, tmp_path / "out")["main.md"].decode()
    row = next(row for row in results_tree.read_csv(tmp_path / "out/main.csv") if row["method"] == "igpo")
    assert (row["seed_names"], row["iteration"], row["selected"]) == ("1 2", "2 1", "best_dev")
    assert "| igpo | igpo | 1 2 | 2 1 best_dev |" in re.sub(" +", " ", text)


def test_questions_of_one_hop_and_of_two_stand_apart(made, tmp_path):
    for path, shift in zip(made[0], (0, 0, 0.2, 0.2), strict=True):
        by_question = path.with_name("questions.parquet")
        rows = storage.read(by_question, schema.PER_QUESTION).to_pylist()
        for row in rows:
            row["f1"] += shift * (row["hops"] - 1)  # 0.7 and 0.9 on the two of two hops
        storage.write(rows, schema.PER_QUESTION, by_question, ("question_id",))
    text = re.sub(" +", " ", results_tree.tables_of(made, tmp_path / "out")["main.md"].decode())
    row = next(row for row in results_tree.read_csv(tmp_path / "out/main.csv") if row["method"] == "igpo")
    assert (row["n_1hop"], row["n_2hop"]) == ("2", "2")
    assert [float(row[f"f1_{hops}hop"]) for hops in (1, 2)] == pytest.approx([0.6, 0.8])
    differences = [float(row[f"f1_2hop_difference{end}"]) for end in ("", "_low", "_high")]
    assert differences == pytest.approx([0.7, 0.6, 0.8])  # to closed book's 0.1, over both draws of a seed
    assert "## By hops: vitalqa" in text
    assert "| igpo | 60.0 | +50.0 | [+40.0, +60.0] | 80.0 | +70.0 | [+60.0, +80.0] |" in text


def test_a_benchmark_of_one_number_of_hops_has_no_table_by_hops(made, tmp_path):
    for path in made[0]:
        by_question = path.with_name("questions.parquet")
        rows = storage.read(by_question, schema.PER_QUESTION).to_pylist()
        storage.write([row | {"hops": 1} for row in rows], schema.PER_QUESTION, by_question, ("question_id",))
    assert b"By hops" not in results_tree.tables_of(made, tmp_path / "out")["main.md"]
    row = next(row for row in results_tree.read_csv(tmp_path / "out/main.csv") if row["method"] == "igpo")
    assert (row["n_1hop"], row["n_2hop"], row["f1_2hop"]) == ("4", "0", "")


def test_main_csv_keeps_its_first_columns(made, tmp_path):
    results_tree.tables_of(made, tmp_path / "out")
    heads = (tmp_path / "out/main.csv").read_text().splitlines()[0]
    assert heads.startswith(
        "source,method,seeds,benchmark,n,f1,em,f1_format,answer_rate,format_failure,turns,searches,"
        "f1_low,f1_high,f1_std,f1_difference,"
    )


def test_two_runs_give_equal_bytes(made, tmp_path):
    assert results_tree.tables_of(made, tmp_path / "one") == results_tree.tables_of(made, tmp_path / "two")


def test_published_rows_are_told_apart_and_keep_the_papers_average():
    rows = [row for row in published.f1_rows("main") if row["method"] == "IGPO"]
    assert {row["source"] for row in rows} == {"published"}
    cells = [row["f1"] for row in rows if row["benchmark"] != "avg"]
    average = next(row["f1"] for row in rows if row["benchmark"] == "avg")
    assert len(cells) == 7
    assert sum(cells) / 7 == pytest.approx(average, abs=0.0005)


def test_a_folder_that_is_no_iteration_is_named(tmp_path):
    assert run_of(tmp_path / "grpo/s3/002") == ("grpo", "3", "002")
    with pytest.raises(UserError, match=r"it1: not an iteration's folder, ARM/sSEED/K"):
        run_of(tmp_path / "it1")


def test_curves_hold_reward_information_gain_and_training_metrics(made, tmp_path):
    results_tree.tables_of(made, tmp_path / "out")
    rows = results_tree.read_csv(tmp_path / "out/curves.csv")
    assert [(row["arm"], row["seed"], row["iteration"]) for row in rows] == [
        ("igpo", seed, k) for seed in "12" for k in "12"
    ]
    assert float(rows[1]["reward"]) == pytest.approx(0.5)
    assert float(rows[1]["info_gain"]) == float(rows[1]["step_reward"]) == pytest.approx(0.5)
    assert float(rows[1]["kl"]) == pytest.approx(0.002)
    assert (rows[1]["flat_advantage"], rows[1]["adaptivity"]) == ("0.25", "")
    assert [row["update_tokens"] for row in rows] == ["50", "50", "100", "100"]
    assert [row["policy_sha256"] for row in rows] == [
        "igpo-0",
        "igpo-1",
    ] * 2  # that acted, not that it became


def test_curves_hold_what_a_critic_learned(tmp_path):
    folder = results_tree.write_iteration(tmp_path, "ppo", 1, 1, 0.5)
    assert "value_loss" not in curve_row(folder)
    fit = {"value_loss": 0.5, "explained_variance": None}
    (folder / "critic").mkdir()
    (folder / "critic/policy.json").write_text(json.dumps({"metrics": fit}))
    assert curve_row(folder).items() >= fit.items()


def test_what_went_wrong_reaches_curves_and_page(made, tmp_path):
    path = made[1][1] / "health.json"
    health = json.loads(path.read_text()) | {"warnings": ["it falls", "KL < inf"]}
    storage.write_json(health, path)
    results_tree.tables_of(made, tmp_path / "out")
    told = [row["warnings"] for row in results_tree.read_csv(tmp_path / "out/curves.csv")]
    assert told == ["", "it falls | KL < inf", "", ""]
    rows = [curve_row(folder) for folder in made[1]]
    title, lines = report.warnings_part(rows)
    assert (title.text, lines.cells) == ("Warnings", [["igpo s1 iteration 2: it falls | KL < inf"]])
    assert report.warnings_part(rows[:1]) == []


def test_the_page_has_information_gain_by_evidence_over_a_run(made):
    """Means over all turns of an arm: 30 of +1.0 and 10 of -1.0 are +0.5."""
    rows = [curve_row(folder) for folder in made[1][:2]]
    assert report.evidence_part(rows) == []  # unknown
    rows[0] |= {f"info_gain_evidence{key}": v for key, v in (("", 1.0), ("_n", 30), ("_positive", 0.9))}
    rows[1] |= {f"info_gain_evidence{key}": v for key, v in (("", -1.0), ("_n", 10), ("_positive", 0.5))}
    rows[1] |= {"info_gain_answer": None, "info_gain_answer_n": 0, "info_gain_answer_positive": None}
    _, table = report.evidence_part(rows)
    assert table.cells == [["igpo", "a new supporting passage", "40", "+0.50", "80.0"]]


def test_flat_metrics_for_dvc(made, tmp_path):
    metrics = json.loads(results_tree.tables_of(made, tmp_path / "out")["metrics.json"])
    assert metrics["igpo"]["vitalqa"]["f1"] == pytest.approx(0.6)


def test_another_metric_takes_the_place_of_f1(made, tmp_path):
    sections = json.loads(CONFIG) | {"metric": "em"}
    text = re.sub(
        " +", " ", results_tree.tables_of(made, tmp_path / "out", json.dumps(sections))["main.md"].decode()
    )
    assert "| method | EM | 95 % interval | Δ EM | F1 | answered |" in text
    assert "| igpo | 50.0 ± 0.0 | [50.0, 50.0] | +0.0 | 60.0 |" in text
    rows = results_tree.read_csv(tmp_path / "out/main.csv")
    assert (rows[0]["em_difference"], rows[0]["metric"]) == ("0", "em")
    assert "f1_low" not in rows[0]


def test_every_metric_that_is_a_share_may_be_named():
    schema = yaml.safe_load(SCHEMA.read_text())["properties"]["tables"]["properties"]
    assert set(schema["metric"]["enum"]) == set(evaluate.METRICS) - {"turns", "searches"}


def test_a_metric_that_a_question_lacks_is_named(made):
    evaluations = [read_evaluation(path) for path in made[0]]
    evaluations[2].questions.loc[1, "mbe"] = None
    params = SimpleNamespace(**vars(PARAMS) | {"metric": "mbe"})
    with pytest.raises(UserError, match="'mbe' is unknown for questions of 'vitalqa'"):
        table_rows(evaluations, params)


def test_arms_of_different_seeds_are_refused(made, tmp_path):
    other = results_tree.write_evaluation(tmp_path, "grpo_s1", {"vitalqa": results_tree.block(0.1)})
    with pytest.raises(UserError, match=re.escape("different seeds: {'igpo': [1, 2], 'grpo': [1]}")):
        table_rows([read_evaluation(path) for path in (*made[0], other)], PARAMS)


def test_several_benchmarks_get_an_overall_row(tmp_path):
    both = {"a": results_tree.block(0.2), "b": results_tree.block(0.4)}
    path = results_tree.write_evaluation(tmp_path, "closed_book", both)
    rows = table_rows([read_evaluation(path)], PARAMS)
    assert [row["benchmark"] for row in rows] == ["a", "b", "overall"]


def test_other_questions_are_refused(tmp_path):
    one = results_tree.write_evaluation(tmp_path, "closed_book", {"vitalqa": results_tree.block(0.1)})
    two = results_tree.write_evaluation(tmp_path, "warmup", {"vitalqa": results_tree.block(0.1, n=5)})
    with pytest.raises(UserError, match="different questions"):
        table_rows([read_evaluation(path) for path in (one, two)], PARAMS)


def test_an_evaluation_given_twice_is_not_two_seeds(made):
    evaluations = [read_evaluation(path) for path in (made[0][0], made[0][0])]
    with pytest.raises(UserError, match="given twice"):
        table_rows(evaluations, PARAMS)


def test_a_table_of_questions_belongs_to_its_metrics(made):
    path = made[0][0]
    metrics = storage.read_json(path)
    metrics["provenance"]["by_question"] = "00" * 32
    storage.write_json(metrics, path)
    with pytest.raises(UserError, match=r"questions\.parquet: of another evaluation than .*metrics\.json"):
        read_evaluation(path)


def test_a_file_that_is_no_metrics_file_ends_in_one_line(tmp_path, capsys):
    path = tmp_path / "x" / "metrics.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(SystemExit) as end:
        tables.main(results_tree.command([path], [], config=CONFIG, out=tmp_path / "out"))
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
