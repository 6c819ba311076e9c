"""Metrics by hand."""

import itertools
import json
from collections import defaultdict
from types import SimpleNamespace

import pytest
from root import PARAMS_FILE
from small_qwen import tokenizer
from tiny import tiny

from igpo import evaluate, rollout
from igpo.acting.engine import Generation
from igpo.experiment import schema
from igpo.reporting.intervals import bootstrap_means, interval, paired_difference
from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings import read_params

PARAMS = SimpleNamespace(bootstrap=500, seed=0)
QUESTION = {"answers": ["New York"], "supporting_ids": ["1", "2"], "benchmark": "b", "type": "t", "hops": 1}


def trajectory(turns, answer, stop, question_id="q", sample=0):
    """Rollout rows from (queries, hit ids) of every turn."""
    rows = []
    for turn, (queries, hits) in enumerate([([], []), *turns]):
        row = dict.fromkeys(schema.ROLLOUTS.names)
        row |= {
            "question_id": question_id,
            "sample": sample,
            "turn": turn,
            "queries": queries,
            "hit_ids": hits,
        }
        row |= {"tool": "web_search" if queries else None, "policy_ids": [], "observation_ids": [5]}
        rows.append(row)
    rows[-1]["observation_ids"] = []
    rows[-1] |= {"answer": answer, "stop": stop}
    return rows


def test_an_answered_trajectory():
    rows = trajectory([(["a", "b"], ["1", "9"]), (["c"], ["1"]), ([], [])], "York", "answered")
    metrics = evaluate.trajectory_metrics(rows, QUESTION, -2.0)
    assert metrics == {
        "f1": pytest.approx(2 / 3),
        "em": 0.0,
        "f1_squad": pytest.approx(2 / 3),
        "em_squad": 0.0,
        "f1_format": pytest.approx(2 / 3),
        "em_format": 0.0,
        "f1_squad_format": pytest.approx(2 / 3),
        "em_squad_format": 0.0,
        "answer_rate": 1.0,
        "format_failure": 0.0,
        "format_error": 0.0,
        "token_limit": 0.0,
        "turn_limit": 0.0,
        "error": 0.0,
        "turns": 3.0,
        "searches": 3.0,
        "gold_recall": 0.5,
    }


@pytest.mark.parametrize(
    ("stop", "failure"),
    [("format_error", 1.0), ("turn_limit", 0.0), ("token_limit", 1.0), ("error: no tokens", 1.0)],
)
def test_an_unanswered_trajectory(stop, failure):
    metrics = evaluate.trajectory_metrics(trajectory([([], [])], None, stop), QUESTION, -2.0)
    assert (metrics["f1"], metrics["f1_format"], metrics["answer_rate"]) == (0.0, -2.0, 0.0)
    assert (metrics["em_squad"], metrics["em_squad_format"]) == (0.0, -2.0)
    assert metrics["format_failure"] == failure
    cause = stop.partition(":")[0]
    assert {name: metrics[name] for name in schema.FAILURES} == {
        name: float(name == cause) for name in schema.FAILURES
    }


def test_what_the_last_turn_finds_was_not_shown():
    rows = trajectory([(["a"], ["1"]), (["b"], ["2"])], None, "turn_limit")
    metrics = evaluate.trajectory_metrics(rows, QUESTION, -2.0)
    assert (metrics["searches"], metrics["gold_recall"]) == (2.0, 0.5)


def test_a_question_counts_once_whatever_its_samples():
    rows = [
        *trajectory([([], [])], "New York", "answered", "q1", 0),
        *trajectory([([], [])], "x", "answered", "q1", 1),
        *trajectory([([], [])], "x", "answered", "q2", 0),
    ]
    metrics = evaluate.question_metrics(rows, {"q1": QUESTION, "q2": QUESTION}, -2.0, {"q2"})
    assert [(row["f1"], row["covered"]) for row in metrics] == [(0.5, True), (0.0, False)]
    assert evaluate.summary(metrics, PARAMS)["f1"]["mean"] == 0.25


def test_questions_of_one_hop_and_of_two_are_told_apart():
    rows = [
        *trajectory([([], [])], "New York", "answered", "q1"),
        *trajectory([([], [])], "x", "answered", "q2"),
        *trajectory([([], [])], "York", "answered", "q3"),
        *trajectory([([], [])], "New York", "answered", "q4"),
    ]
    questions = {f"q{number}": QUESTION | {"hops": hops} for number, hops in enumerate((1, 1, 2, 0), start=1)}
    blocks = evaluate.by_hops(evaluate.question_metrics(rows, questions, -2.0, None), PARAMS)
    means = {hops: (block["n"], block["f1"]["mean"]) for hops, block in blocks.items()}
    assert means == {"1": (2, 0.5), "2": (1, pytest.approx(2 / 3))}  # of q4 it is unknown


def test_types_of_several_benchmarks_are_told_apart():
    rows = [
        {"benchmark": name, "type": kind} | dict.fromkeys(evaluate.METRICS, f1)
        for name, kind, f1 in (("b", "t", 1.0), ("b", "u", 0.5), ("c", "t", 0.0), ("d", "", 0.25))
    ]
    types = evaluate.by_type(rows, PARAMS)
    assert {name: values["f1"]["mean"] for name, values in types.items()} == {
        "b: t": 1.0,
        "b: u": 0.5,
        "c: t": 0.0,
        "d": 0.25,
    }
    assert list(evaluate.by_type(rows[:2], PARAMS)) == ["t", "u"]


def test_rollouts_of_other_questions_are_refused(tmp_path):
    (tmp_path / "questions").write_text("these")
    rows = trajectory([([], [])], "York", "answered")
    for number, sha256 in enumerate(("", storage.sha256(tmp_path / "questions"))):
        path = tmp_path / str(number)
        blank = {"text": "", "policy_logprobs": []}
        storage.write(
            [row | blank for row in rows], schema.ROLLOUTS, path, schema.TURN_KEY, {"questions": sha256}
        )
        evaluate.check_source(path, "questions", tmp_path / "questions")
    (tmp_path / "questions").write_text("others")
    with pytest.raises(UserError, match=r"1: made of other questions than .*questions; give those"):
        evaluate.check_source(path, "questions", tmp_path / "questions")


def test_what_is_known_of_a_choice_comes_from_the_best_policy_s_manifest(tmp_path):
    chosen = {"by": "dev F1", "iteration": 4, "f1": 0.5, "validated": {"4": 0.5}}
    storage.write_json({"iteration": 4, "selected": chosen}, tmp_path / "policy.json")
    assert evaluate.selection(tmp_path / "policy.json") == {"iteration": 4, "selection": chosen}
    storage.write_json({"iteration": 4}, tmp_path / "policy.json")
    with pytest.raises(UserError, match="nobody chose this policy"):
        evaluate.selection(tmp_path / "policy.json")


def test_the_interval_holds_the_mean_and_is_reproducible():
    values = [0.0] * 50 + [1.0] * 50
    first, second = interval(values, 2000, 1), interval(values, 2000, 1)
    assert first == second
    assert first["low"] == pytest.approx(0.4, abs=0.02)
    assert first["high"] == pytest.approx(0.6, abs=0.02)


def test_an_unknown_question_is_an_error():
    with pytest.raises(UserError, match="lacks 'q'"):
        evaluate.question_metrics(trajectory([([], [])], "x", "answered"), {}, -2.0, None)


def test_a_paired_difference_by_hand():
    difference = paired_difference([1.0, 0.5, 0.0, 0.5], [0.5, 0.0, 0.0, 1.0], 4000, 0)
    assert difference["mean"] == pytest.approx(0.125)  # of 0.5, 0.5, 0, -0.5
    # every mean of four draws from these: sums of x = (#up - #down) / 8, over 4^4 equally likely draws
    sums = [sum(draw) / 4 for draw in itertools.product([0.5, 0.5, 0.0, -0.5], repeat=4)]
    below = sum(value <= 0 for value in sums) / len(sums)
    assert difference["p"] == pytest.approx(2 * below, abs=0.05)
    assert (difference["low"], difference["high"]) == (-0.25, 0.5)


def test_seeds_are_resampled_as_well_as_questions():
    values = [[0.0, 1.0], [1.0, 1.0]]
    means = bootstrap_means(values, 20_000, 0)
    first = {0.0: 1 / 4, 0.5: 1 / 2, 1.0: 1 / 4}  # question 1's mean over two drawn seeds; question 2's is 1
    shares: dict[float, float] = defaultdict(float)
    for value, share in first.items():
        for drawn in itertools.product((value, 1.0), repeat=2):  # the two drawn questions
            shares[sum(drawn) / 2] += share / 4
    assert shares.keys() == set(means)
    for mean, share in shares.items():
        assert (means == mean).mean() == pytest.approx(share, abs=0.01)
    one = interval([values[0]], 500, 1)
    assert one == interval(values[0], 500, 1)  # of one seed: of questions alone


def test_a_baseline_of_one_seed_is_compared_with_each_seed():
    difference = paired_difference([[0.5, 0.5], [0.7, 0.7]], [[0.1, 0.1]], 500, 0)
    assert difference == pytest.approx({"mean": 0.5, "low": 0.4, "high": 0.6, "p": 0.0})
    same = paired_difference([[0.5, 0.5], [0.7, 0.7]], [[0.5, 0.5], [0.7, 0.7]], 500, 0)
    assert same == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}  # paired by seed too


def test_pairs_keep_what_questions_share_out_of_the_interval():
    easy_and_hard = [0.0, 1.0] * 20
    better = [value * 0.9 + 0.05 for value in easy_and_hard]
    assert paired_difference(easy_and_hard, easy_and_hard, 500, 0) == {
        "mean": 0.0,
        "low": 0.0,
        "high": 0.0,
        "p": 1.0,
    }
    paired = paired_difference(better, easy_and_hard, 500, 0)
    alone = interval(better, 500, 0)
    assert paired["high"] - paired["low"] < 0.2 * (alone["high"] - alone["low"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": 3}, "2 questions, 3 were asked for"),
        ({"questions": None, "benchmarks": ["b"]}, "2 questions, 1 were asked for"),
        ({"samples": 2}, "question 'q2' has 1 samples, 2 were asked for"),
    ],
)
def test_missing_rows_are_an_error(settings, message):
    """Disagreement 23: the released code leaves out what exceeds a multiple of the number of GPUs."""
    rows = [
        *trajectory([([], [])], "x", "answered", "q1", 0),
        *trajectory([([], [])], "x", "answered", "q1", 1),
        *trajectory([([], [])], "x", "answered", "q2", 0),
    ]
    questions = [{"question_id": f"q{i}", "benchmark": "b" if i == 1 else "c"} for i in range(1, 5)]
    with pytest.raises(UserError, match=message):
        evaluate.check_complete(rows, questions, {"benchmarks": [], "questions": 2, "samples": 1} | settings)


def test_every_row_is_counted():
    """Disagreement 23: of 13 questions in two benchmarks none is left out."""
    questions = {
        f"q{i:02}": QUESTION | {"question_id": f"q{i:02}", "benchmark": "ab"[i % 2]} for i in range(13)
    }
    rows = [row for name in questions for row in trajectory([([], [])], "New York", "answered", name)]
    evaluate.check_complete(
        rows, list(questions.values()), {"benchmarks": [], "questions": 200, "samples": 1}
    )
    metrics = evaluate.question_metrics(rows, questions, -2.0, None)
    assert evaluate.summary(metrics, PARAMS)["n"] == 13
    parts = evaluate.split_by(metrics, "benchmark", PARAMS)
    assert {name: (part["n"], part["f1"]["mean"]) for name, part in parts.items()} == {
        "a": (7, 1.0),
        "b": (6, 1.0),
    }


class Says:
    """An engine that samples one text."""

    def __init__(self, ids: list[int]):
        self.ids = ids

    def generate(self, requests, max_new, temperature, stops):
        return [Generation(self.ids, [0.0] * len(self.ids), True) for _ in requests]

    def forget(self):
        pass


@pytest.mark.parametrize(("temperature", "decoding"), [(0.0, "greedy"), (0.7, "temperature 0.7")])
def test_metrics_say_how_answers_were_decoded(tmp_path, monkeypatch, temperature, decoding):
    """Disagreement 21: the released code samples its validation curve and decodes its last score greedily."""
    words = tokenizer()
    tiny("qwen2", len(words)).bfloat16().save_pretrained(tmp_path / "policy")
    words.save_pretrained(tmp_path / "policy")
    monkeypatch.setattr(rollout, "open_engine", lambda *_: Says(words(" New York\n")["input_ids"]))
    question = dict.fromkeys(schema.QUESTIONS.names) | QUESTION | {"question_id": "q", "question": "Where?"}
    storage.write([question], schema.QUESTIONS, tmp_path / "questions", schema.QUESTIONS_KEY)
    files = ["--questions", str(tmp_path / "questions")]
    section = read_params([PARAMS_FILE])["rollout"]
    section |= {"protocol": "closed_book", "benchmarks": [], "temperature": temperature}
    played = ["--policy", str(tmp_path / "policy"), "--config", json.dumps(section)]
    rollout.main([*files, *played, "--out", str(tmp_path / "rollouts")])
    scored = ["--rollouts", str(tmp_path / "rollouts"), "--params", str(PARAMS_FILE)]
    evaluate.main([*files, *scored, "--out", str(tmp_path / "metrics.json")])
    metrics = storage.read_json(tmp_path / "metrics.json")
    assert (metrics["overall"]["f1"]["mean"], metrics["provenance"]["decoding"]) == (1.0, decoding)


def test_all_rows_there_is_no_error():
    rows = trajectory([([], [])], "x", "answered", "q1", 0)
    settings = {"benchmarks": ["b"], "questions": 200, "samples": 1}  # of one question, all
    evaluate.check_complete(rows, [{"question_id": "q1", "benchmark": "b"}], settings)
