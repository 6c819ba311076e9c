"""The checks of the paper's claims, by hand: groups without advantage, one search at most."""

import csv
import json
import re
from pathlib import Path

import pytest
import results_tree
from reward_rows import table_rows

from igpo.comparisons import collapse, comparison, single_turn
from igpo.experiment import checks, layout, schema
from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings import apply_arm

# Four samples of a search and an answer; q2's rewards are what q1's are not.
GROUPS = {
    "q1": [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0], [0.2, 1.0]],  # gains differ, in the last sample only
    "q2": [[0.1, 1.0], [0.1, 0.0], [0.1, 1.0], [0.1, 0.0]],  # outcomes differ
    "q3": [[0.3, 1.0]] * 4,  # nothing does
}
LATER = {name: [[0.3, 1.0]] * 4 for name in GROUPS}
# One search at most: z of gains and of outcomes is ±1 in pairs, (0.577, 0.577, 0.577, -1.732) of one in four.
ONE_SEARCH = {
    "q1": [[2.0, 1.0], [0.0, 0.0]],
    "q2": [[0.0, 1.0], [2.0, 1.0]],
    "q3": [[1.0], [0.0]],
    "q4": [[0.5, 1.0], [0.5, 1.0]],
    "q5": [[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]],
}


def write_iteration(root: Path, arm: str, seed: int, k: int, groups: dict[str, list[list[float]]]) -> Path:
    """An iteration's rollouts and scores."""
    folder = root / "runs" / arm / f"s{seed}" / f"{k:03d}"
    both = [table_rows(name, rewards) for name, rewards in groups.items()]
    for file, columns, place in (("rollouts", schema.ROLLOUTS, 0), ("scores", schema.SCORES, 1)):
        rows = [row for pair in both for row in pair[place]]
        meta = {"policy": f"{k:02d}" * 32} if place else None
        storage.write(rows, columns, folder / f"{file}.parquet", schema.TURN_KEY, meta)
    return folder


def write_questions(path: Path) -> Path:
    """q1 and q3 of one hop, the others of two."""
    rows = [
        {"question_id": f"q{i}", "benchmark": "vitalqa", "question": "?", "answers": ["x"]}
        | {"supporting_ids": [], "hops": 1 + (i % 2 == 0), "split": "train", "type": "capital"}
        for i in range(1, 6)
    ]
    storage.write(rows, schema.QUESTIONS, path, schema.QUESTIONS_KEY)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def params(params):
    """Two methods, of two iterations."""
    params["run"] |= {"arms": ["grpo", "igpo"], "iterations": 2}
    params["tables"]["collapse"] = ["igpo", "grpo"]
    return params


def make_collapse(params, folders, out: Path) -> dict[tuple[str, str, str], float]:
    """Shares by part, value and method."""
    questions = write_questions(out / "questions.parquet")
    words = ["--config", json.dumps(params), "--questions", str(questions), "--out", str(out)]
    collapse.main([*words, "--iterations", *map(str, folders)])
    rows = read_csv(out / "collapse.csv")
    return {(row["by"], row["value"], row["method"]): float(row["zero_share"]) for row in rows}


def test_groups_without_advantage_by_policy_data_set_and_size(params, tmp_path):
    # both arms share the warm start's files: its groups count once
    folders = [write_iteration(tmp_path, arm, 1, 1, GROUPS) for arm in ("grpo", "igpo")]
    folders.append(write_iteration(tmp_path, "igpo", 1, 2, LATER))
    table = make_collapse(params, folders, tmp_path)
    expected = {
        ("policy", "warm start"): (1 / 3, 2 / 3),
        ("policy", "igpo after 1"): (1, 1),
        ("data", "vitalqa"): (4 / 6, 5 / 6),
        ("data", "one hop"): (3 / 4, 4 / 4),
        ("data", "two hops or more"): (1 / 2, 1 / 2),
        ("size", "2"): (5 / 6, 5 / 6),  # the first two samples of q1 are equal
        ("size", "4"): (4 / 6, 5 / 6),
    }
    assert table == {
        (*place, method): pytest.approx(share, abs=1e-6)
        for place, shares in expected.items()
        for method, share in zip(("igpo", "grpo"), shares, strict=True)
    }
    rows = read_csv(tmp_path / "collapse.csv")
    assert [row["groups"] for row in rows[:4]] == ["3"] * 4
    assert rows[0]["policy_sha256"] == "01" * 32
    text = re.sub(" +", " ", (tmp_path / "collapse.md").read_text())
    assert "| warm start | 3 | 33.3 | 66.7 |" in text
    assert "Figure 1" in text


def test_types_with_few_groups_have_no_row(params, tmp_path):
    groups = {f"q{i}": LATER["q1"] for i in range(1, 6)}
    folders = [write_iteration(tmp_path, "igpo", seed, 1, groups) for seed in (1, 2)]
    write_iteration(tmp_path, "igpo", 2, 1, groups | {"q5": GROUPS["q1"]})  # or it would be seed 1's again
    assert ("data", "type capital", "igpo") in make_collapse(params, folders, tmp_path)
    assert ("data", "type capital", "igpo") not in make_collapse(params, folders[:1], tmp_path / "one")


def test_weights_that_change_hold_as_of_the_iteration(params, tmp_path):
    params["arms"]["only_first"] = {"advantage": {"gain_weight": [2.0, 0.0], "outcome_weight": 0.0}}
    params["tables"]["collapse"] = ["only_first"]
    folders = [write_iteration(tmp_path, "igpo", 1, 1, GROUPS)]
    folders.append(write_iteration(tmp_path, "igpo", 1, 2, GROUPS | {"q3": GROUPS["q2"]}))
    table = make_collapse(params, folders, tmp_path)
    assert table["policy", "warm start", "only_first"] == pytest.approx(2 / 3, abs=1e-6)
    assert table["policy", "igpo after 1", "only_first"] == 1


def test_wilsons_interval_by_hand():
    assert collapse.wilson(0, 10) == pytest.approx((0, 3.8415 / 13.8415), abs=1e-4)
    assert collapse.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert collapse.wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("ppo", "tables.collapse: 'ppo' needs a critic's values"),
        ("prob", "tables.collapse: 'prob' has a `rollout` or `score` section of its own"),
        ("single_turn_igpo", "tables.collapse: 'single_turn_igpo' has a `rollout` or `score`"),
        ("igop", "no arm 'igop' in arms; nearest: 'igpo'"),
    ],
)
def test_a_method_that_the_files_say_nothing_about_is_refused(params, arm, message):
    params["tables"]["collapse"] = [arm]
    with pytest.raises(UserError, match=re.escape(message)):
        checks.check(params)


def test_only_iterations_that_sample_and_score_as_the_sections_say_are_looked_at(params):
    params["run"]["arms"] = ["prob", "grpo", "single_turn_igpo"]
    assert layout.collapse_iterations(params) == [f"results/runs/grpo/s1/00{k}" for k in (1, 2)]


def test_nothing_to_look_at_ends_in_one_line(params, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        make_collapse(params, [], tmp_path)
    assert end.value.code == 2
    assert "error: --iterations: none to look at" in capsys.readouterr().err


def make_single_turn(params, folders, out: Path) -> list[dict[str, str]]:
    """The rows of the table."""
    names = {"single_turn_warmup": 0.1, "single_turn_grpo_s1": 0.4, "single_turn_igpo_s1": 0.6}
    metrics = [
        results_tree.write_evaluation(out, name, {"vitalqa": results_tree.block(f1)})
        for name, f1 in names.items()
    ]
    words = ["--config", json.dumps(params), "--metrics", *map(str, metrics), "--out", str(out)]
    single_turn.main([*words, "--iterations", *map(str, folders)])
    return read_csv(out / "single_turn.csv")


def test_how_far_the_advantage_is_the_outcomes(params, tmp_path):
    folders = [write_iteration(tmp_path, f"single_turn_{arm}", 1, 1, ONE_SEARCH) for arm in ("igpo", "grpo")]
    folders.append(write_iteration(tmp_path, "single_turn_igpo", 1, 2, {"q3": ONE_SEARCH["q3"]}))
    rows = make_single_turn(params, folders, tmp_path)
    assert [row["method"] for row in rows[:3]] == [
        f"single_turn_{name}" for name in ("warmup", "grpo", "igpo")
    ]
    assert float(rows[2]["f1_difference"]) == pytest.approx(0.2)
    start, later, every = rows[3:]
    assert [row["policy"] for row in rows[3:]] == ["warm start", "single_turn_igpo after 1", "all"]
    assert (start["groups"], start["search_turns"]) == ("5", "10")
    # A: 2 -2 | -1 1 | 0 0 | -1.155 1.155 1.155 -1.155; z: 1 -1 | 0 0 | 0 0 | 0.577 0.577 0.577 -1.732
    assert float(start["correlation"]) == pytest.approx(6.6667 / 92**0.5, abs=1e-4)
    assert float(start["mean_difference"]) == pytest.approx((2 + 2 + 2 * 3**0.5) / 10, abs=1e-4)
    assert [float(start[name]) for name in ("opposite", "outcome_zero")] == [0.1, 0.2]
    assert [float(start[name]) for name in single_turn.SIGNALS] == [0.4, 0.2, 0.2, 0.2]
    # nothing searches any more
    assert [later[name] for name in ("search_turns", *single_turn.AGREEMENT)] == ["0", "", "", "", ""]
    assert (later["outcome_only"], every["groups"]) == ("1", "6")
    text = re.sub(" +", " ", (tmp_path / "single_turn.md").read_text())
    assert "| warm start | 10.0 [0.0, 20.0] | -30.0" in text
    assert "| warm start | 5 | 10 | 0.70 | 0.75 | 10.0 | 20.0 | 40.0 | 20.0 | 20.0 | 20.0 |" in text
    assert "| single_turn_igpo after 1 | 1 | 0 | – | – | – | – |" in text


def test_the_discount_stands_between_a_search_and_the_outcome(params, tmp_path):
    params["arms"]["single_turn_igpo"]["advantage"] = {"gamma": 0.5}
    folders = [write_iteration(tmp_path, "single_turn_igpo", 1, 1, {"q1": ONE_SEARCH["q1"]})]
    start = make_single_turn(params, folders, tmp_path)[3]
    assert float(start["mean_difference"]) == pytest.approx(0.5, abs=1e-5)  # A = 1 + 0.5, z = 1


def test_equal_inputs_give_equal_bytes(params, tmp_path):
    folders = [write_iteration(tmp_path, "single_turn_igpo", 1, 1, ONE_SEARCH)]
    files = []
    for out in (tmp_path / "one", tmp_path / "two"):
        make_single_turn(params, folders, out)
        files.append([(out / f"single_turn.{form}").read_bytes() for form in ("csv", "md", "tex")])
    assert files[0] == files[1]


def test_no_arm_of_igpo_is_named(params):
    params["tables"]["single_turn"] = {"baseline": "grpo", "rows": {"grpo": None}}
    with pytest.raises(UserError, match=r"tables\.single_turn: none of its arms has advantage\.method igpo"):
        single_turn.measured_arm(params)


def test_the_warm_start_is_evaluated_under_the_settings_of_the_arms(params):
    rows = layout.compared(params, "single_turn")
    assert list(rows) == ["single_turn_warmup", "single_turn_grpo_s1", "single_turn_igpo_s1"]
    assert rows["single_turn_warmup"] == ("single_turn_grpo", "results/warmup")
    assert layout.evaluation_settings(params, "single_turn_grpo")["max_turns"] == 2
    params["rollout"]["max_turns"] = 2
    assert layout.compared(params, "single_turn")["warmup"] == (None, "results/warmup")
    params["tables"]["single_turn"]["rows"] = {"single_turn_igpo": None, "igpo": None}
    params["rollout"]["max_turns"] = 3  # the arms differ: no one warm start is theirs
    assert "warmup" in layout.compared(params, "single_turn")


def test_discounts_are_compared_on_dev_questions(params):
    rows = layout.compared(params, "gamma")
    assert list(rows) == [
        f"dev/{name}" for name in ("warmup", "gamma_05_s1", "gamma_08_s1", "gamma_09_s1", "igpo_s1")
    ]
    assert rows["dev/gamma_05_s1"] == ("gamma_05", "results/runs/gamma_05/s1/002")
    assert [apply_arm(params, arm)["advantage"]["gamma"] for arm in params["tables"]["gamma"]["rows"]] == [
        0.5,
        0.8,
        0.9,
        1.0,
    ]


def test_a_check_has_no_published_rows(params, tmp_path):
    names = {"warmup": 0.1, "gamma_05_s1": 0.4, "gamma_08_s1": 0.5, "gamma_09_s1": 0.55, "igpo_s1": 0.6}
    metrics = [
        results_tree.write_evaluation(tmp_path, name, {"vitalqa": results_tree.block(f1)})
        for name, f1 in names.items()
    ]
    words = ["--table", "gamma", "--metrics", *map(str, metrics), "--out", str(tmp_path)]
    comparison.main([*words, "--config", json.dumps(params["tables"])])
    text = re.sub(" +", " ", (tmp_path / "gamma.md").read_text())
    assert (
        "| igpo, gamma 0.5 | 40.0 [30.0, 50.0] | -20.0 [-20.0, -20.0] | 0.000 | 50.0 | 50.0 | 0.50 |" in text
    )
    assert "did not tune it" in text and "Published by the paper" not in text
    assert {row["source"] for row in read_csv(tmp_path / "gamma.csv")} == {"ours"}
    params["tables"]["gamma"]["rows"]["igpo"] = "IGPO"
    with pytest.raises(UserError, match=r"tables\.gamma\.rows\.igpo: no published row 'IGPO'"):
        checks.check(params)
