"""Health by hand: two questions of two trajectories each."""

import json
import math

import pytest
from small_index import call, refusal

from igpo.experiment import schema
from igpo.health import health, main
from pipeline import storage
from pipeline.errors import UserError

QUESTIONS = [
    {"question_id": "q1", "hops": 1, "supporting_ids": ["a"], "answers": ["X", "the Neva"]},
    {"question_id": "q2", "hops": 2, "supporting_ids": ["b", "c"], "answers": ["1867"]},
]
# what a hit reads like: of q1 both hold an answer, of q2 the second supporting passage alone
PASSAGES = {"a": "A city on the Neva.", "b": "Born in 11867.", "c": "Oslo (1867)", "x": "Nothing."}
# (question, sample): (queries, hits, text, gains, outcome, stop) per turn; q1's group has no spread at all
SEARCH = (["Rome"], ["a", "x"], "go")
PLAYED = {
    ("q1", 0): ([SEARCH, ([], [], "so")], [0.5], 1.0, "answered"),
    ("q1", 1): ([SEARCH, ([], [], "so")], [0.5], 1.0, "answered"),
    ("q2", 0): (
        [(["Rome"], ["b", "x"], "go"), (["rome ", "Oslo"], ["x", "c"], "!!!!"), ([], [], "so")],
        [0.2, -0.4],
        0.5,
        "answered",
    ),
    ("q2", 1): ([([], [], "hmmmm aaa")], [], -2.0, "format_error"),
}
ADVANTAGES = {"q1": 0.0, "q2": 0.7}


def made() -> dict[str, list[dict]]:
    """The three tables; every turn samples two tokens of log-probability -1 and -3, and is shown three."""
    tables: dict[str, list[dict]] = {"rollouts": [], "scores": [], "advantages": []}
    for (question_id, sample), (turns, gains, outcome, stop) in PLAYED.items():
        gold, last = -2.0, len(turns)
        for number, (queries, hits, text) in enumerate([([], [], ""), *turns]):
            key = {"question_id": question_id, "sample": sample, "turn": number}
            searched = 0 < number < last
            gold += gains[number - 1] if searched else 0.0
            sampled = [1, 2] if number else []
            tables["rollouts"].append(
                dict.fromkeys(schema.ROLLOUTS.names)
                | key
                | {"policy_ids": sampled, "policy_logprobs": [-1.0, -3.0][: len(sampled)], "text": text}
                | {"observation_ids": [] if number == last else [7, 8, 9]}
                | {"observation": " ".join(PASSAGES[hit] for hit in hits)}
                | {"queries": queries, "hit_ids": hits, "tool": "web_search" if queries else None}
                | {"stop": stop if number == last else None}
            )
            tables["scores"].append(
                key
                | {"gold_logprob": None if number == last else gold}
                | {"info_gain": gains[number - 1] if searched else None}
                | {"outcome": outcome if number == last else None}
                | {"format_ok": outcome >= 0 if number == last else None}
            )
            if number:
                tables["advantages"].append(key | {"advantage": ADVANTAGES[question_id]})
    return tables


def test_searching():
    metrics = health(**made(), questions=QUESTIONS)
    assert metrics["searches"] == pytest.approx((1 + 1 + 3 + 0) / 4)
    assert metrics["adaptivity"] == pytest.approx((3 + 0) / 2 - (1 + 1) / 2)
    assert metrics["duplicate_queries"] == pytest.approx((0 + 0 + 1 / 3) / 3)  # of those that searched
    assert metrics["hit_overlap"] == pytest.approx(1 / 2)  # x again, c new; the others have one turn of hits
    assert metrics["gold_recall_1"] == pytest.approx((1 + 1 + 1 / 2 + 0) / 4)
    assert metrics["gold_recall_2"] == metrics["gold_recall_3"] == pytest.approx((1 + 1 + 1 + 0) / 4)


def test_what_the_last_turn_finds_was_not_shown():
    tables = made()
    for row in tables["rollouts"]:
        if not row["observation_ids"]:
            row["hit_ids"] = ["a", "b", "c"]
    before, after = (health(**rows, questions=QUESTIONS)["gold_recall_3"] for rows in (made(), tables))
    assert before == after < 1


def test_opening_a_page_is_no_search():
    tables = made()
    for row in tables["rollouts"]:
        if row["queries"] == ["rome ", "Oslo"]:
            row["tool"] = "open"
    metrics = health(**tables, questions=QUESTIONS)
    assert metrics["adaptivity"] == pytest.approx((1 + 0) / 2 - (1 + 1) / 2)
    assert metrics["duplicate_queries"] == 0.0


def test_information_by_depth():
    metrics = health(**made(), questions=QUESTIONS)
    assert metrics["info_gain"] == pytest.approx((0.5 + 0.5 + 0.2 - 0.4) / 4)
    assert metrics["info_gain_1"] == pytest.approx(0.4)
    assert metrics["info_gain_std_1"] == pytest.approx(math.sqrt((0.01 + 0.01 + 0.04) / 3))
    assert (metrics["info_gain_positive_1"], metrics["info_gain_positive_2"]) == (1.0, 0.0)
    assert metrics["info_gain_2"] == pytest.approx(-0.4)
    assert "info_gain_3" not in metrics
    assert metrics["gold_logprob_start"] == pytest.approx(-2.0)
    assert metrics["gold_logprob_end"] == pytest.approx((-1.5 - 1.5 - 2.2 - 2.0) / 4)


def test_information_gain_is_measured_whatever_the_step_reward():
    tables = made()
    for row in tables["scores"]:
        row["step_reward"] = 0.0
    assert health(**tables, questions=QUESTIONS) == health(**made(), questions=QUESTIONS)


def by_evidence(metrics: dict, kind: str) -> tuple:
    """Mean, number and share above 0 of the gains of one kind of search."""
    return tuple(metrics[f"info_gain_{kind}{what}"] for what in ("", "_n", "_positive"))


def test_information_by_evidence():
    """Both searches for q1 show its passage; of q2's passages the second holds the answer."""
    metrics = health(**made(), questions=QUESTIONS)
    assert by_evidence(metrics, "evidence") == pytest.approx(((0.5 + 0.5 + 0.2 - 0.4) / 4, 4, 3 / 4))
    assert by_evidence(metrics, "answer") == pytest.approx(((0.5 + 0.5 - 0.4) / 3, 3, 2 / 3))
    assert by_evidence(metrics, "no_evidence") == (None, 0, None)


@pytest.mark.parametrize(
    ("shown", "answer", "holds"),
    [
        ("Melville (1819–1891) was", "1819", True),  # an en dash is no ASCII punctuation
        ("Melville (1819–1891) was", "1891", True),
        ("the novel “Moby-Dick”", "Moby Dick", True),
        ("Melville, 18190", "1819", False),
        ("one, two", "!", False),
    ],
)
def test_a_passage_holds_an_answer_whose_words_stand_in_it(shown, answer, holds):
    tables, questions = made(), [QUESTIONS[0] | {"answers": [answer]}, QUESTIONS[1]]
    for row in tables["rollouts"]:
        if row["hit_ids"] == ["a", "x"]:
            row["observation"] = shown
    assert health(**tables, questions=questions)["info_gain_answer_n"] == 1 + 2 * holds


def test_a_passage_shown_before_is_no_new_evidence():
    tables = made()
    for row in tables["rollouts"]:
        if row["hit_ids"] == ["x", "c"]:
            row["hit_ids"] = ["x", "b"]
        if row["question_id"] == "q1" and not row["turn"]:
            row["hit_ids"] = ["a"]  # in the prompt
    metrics = health(**tables, questions=QUESTIONS)
    assert by_evidence(metrics, "evidence") == pytest.approx((0.2, 1, 1.0))
    assert by_evidence(metrics, "no_evidence") == pytest.approx(((0.5 + 0.5 - 0.4) / 3, 3, 2 / 3))


def test_what_is_no_search_shows_no_evidence():
    tables = made()
    for row in tables["rollouts"]:
        row["tool"] = row["tool"] and "open"
    metrics = health(**tables, questions=QUESTIONS)
    assert by_evidence(metrics, "evidence") == by_evidence(metrics, "no_evidence") == (None, 0, None)


def test_spread():
    metrics = health(**made(), questions=QUESTIONS)
    assert [metrics[f"flat_{name}"] for name in ("outcome", "info_gain", "both", "advantage")] == [0.5] * 4


def test_a_group_may_be_flat_in_one_reward_only():
    tables = made()
    for row in tables["scores"]:
        if row["outcome"] is not None:
            row["outcome"] = 1.0 + 1e-9 * row["sample"]  # below what counts as spread
    metrics = health(**tables, questions=QUESTIONS)
    assert (metrics["flat_outcome"], metrics["flat_info_gain"], metrics["flat_both"]) == (1.0, 0.5, 0.5)


def test_writing():
    """Disagreement 24: of what the policy sampled; the released code's entropy is over tool results too."""
    metrics = health(**made(), questions=QUESTIONS)
    assert metrics["well_formed"] == pytest.approx(3 / 4)
    assert metrics["entropy"] == pytest.approx(2.0)
    # go so, go so, go !!!! so, hmmmm aaa: 4 of "!!!!" and 4 of "mmmm"; three equal letters are none
    assert metrics["repeated_characters"] == pytest.approx(8 / (4 + 4 + 8 + 9))
    assert metrics["invalid_turns"] == pytest.approx(1 / 8)
    assert (metrics["update_tokens"], metrics["credited_tokens"]) == (8, pytest.approx(8 / 16))
    tables = made()
    tables["rollouts"][1] |= {"tool": None, "queries": []}  # malformed, told so, and it went on
    assert health(**tables, questions=QUESTIONS)["invalid_turns"] == pytest.approx(2 / 8)


def test_unknown_hops_and_supporting_passages_are_null():
    unknown = [row | {"hops": 0, "supporting_ids": []} for row in QUESTIONS]
    metrics = health(**made(), questions=unknown)
    assert metrics["adaptivity"] is None
    assert not any(name.startswith("gold_recall") for name in metrics)
    for kind in ("evidence", "answer", "no_evidence"):
        assert by_evidence(metrics, kind) == (None, None, None)


@pytest.mark.parametrize("name", ["scores", "advantages"])
def test_tables_of_other_rollouts_are_refused(name):
    tables = made()
    del tables[name][-1]
    with pytest.raises(UserError, match=f"^{name}: not of these rollouts, turn "):
        health(**tables, questions=QUESTIONS)


SETTINGS = {
    "on_collapse": "warn",
    "searches": 0.5,
    "well_formed": 0.5,
    "updated_well_formed": 0.9,
    "entropy": 0.2,
}


@pytest.fixture
def files(tmp_path) -> list:
    """The options that name an iteration's files."""
    filled = {"benchmark": "b", "question": "?", "split": "train", "type": ""}
    kinds = {
        "rollouts": (schema.ROLLOUTS, schema.TURN_KEY),
        "scores": (schema.SCORES, schema.TURN_KEY),
        "advantages": (schema.ADVANTAGES, schema.TURN_KEY),
        "questions": (schema.QUESTIONS, schema.QUESTIONS_KEY),
    }
    rows = made() | {"questions": [row | filled for row in QUESTIONS]}
    for name, (columns, key) in kinds.items():
        full = [dict.fromkeys(columns.names) | row for row in rows[name]]
        storage.write(full, columns, tmp_path / name, key)
    policy = {"metrics": {"loss": 0.25, "kl": math.inf}, "weights_sha256": "w1"}
    storage.write_json(policy, tmp_path / "policy.json")
    storage.write_json({"searches": 5.0, "well_formed": 0.75, "entropy": 2.0}, tmp_path / "start.json")
    named = [word for name in kinds for word in (f"--{name}", tmp_path / name)]
    return [*named, "--policy", tmp_path / "policy.json", "--out", tmp_path / "health.json"]


def test_a_collapse_is_warned_of_in_file_log_and_summary(files, tmp_path, capsys):
    summary = call(main, *files, "--start", tmp_path / "start.json", "--config", json.dumps(SETTINGS))
    metrics = json.loads((tmp_path / "health.json").read_text())
    assert metrics["searches_of_start"] == pytest.approx(1.25 / 5)
    assert [metrics[name] for name in ("loss", "grad_norm", "kl")] == [0.25, None, None]
    assert len(metrics["warnings"]) == 2
    searches, kl = metrics["warnings"]
    assert searches.startswith("searches per trajectory 1.25, below 0.5 of the start's 5: try score.")
    assert kl.startswith("KL is inf: try a lower train.lr")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert lines == [f"warning: {tmp_path}: {sentence}" for sentence in metrics["warnings"]]
    assert ", warnings: 2 (" in summary


def test_a_collapse_stops_the_run_if_it_should(files, tmp_path, capsys):
    config = json.dumps(SETTINGS | {"on_collapse": "stop"})
    message = refusal(capsys, main, *files, "--start", tmp_path / "start.json", "--config", config)
    assert message.startswith(f"error: {tmp_path}: searches per trajectory 1.25, below 0.5")


def test_the_first_iteration_is_its_own_start(files, tmp_path):
    storage.write_json({"metrics": {}}, tmp_path / "policy.json")  # no update was made
    summary = call(main, *files, "--config", json.dumps(SETTINGS | {"on_collapse": "stop"}))
    metrics = json.loads((tmp_path / "health.json").read_text())
    assert (metrics["warnings"], metrics["searches_of_start"], metrics["loss"]) == ([], 1.0, None)
    assert "warning" not in summary


@pytest.fixture
def dev(tmp_path) -> list:
    """The option that names the validations of the updated policy, 0.75 well-formed, and of the start, 1."""
    for name, failures in (("w1", 0.25), ("w0", 0.0)):
        overall = {"format_failure": {"mean": failures}}
        storage.write_json({"overall": overall, "provenance": {"policy": name}}, tmp_path / f"{name}.json")
    return ["--dev", tmp_path / "w1.json", tmp_path / "w0.json"]


def test_the_updated_policy_s_validation_is_compared_with_the_warm_start_s(files, dev, tmp_path):
    call(main, *files, *dev, "--config", json.dumps(SETTINGS))
    metrics = json.loads((tmp_path / "health.json").read_text())
    assert metrics["updated_well_formed"] == 0.75
    sentence, _ = metrics["warnings"]
    assert sentence.startswith(
        "validation's share of well-formed trajectories 0.75, below 0.9 of the start's 1: try "
    )


def test_without_a_validation_its_share_is_unknown(files, tmp_path):
    call(main, *files, "--config", json.dumps(SETTINGS))
    assert json.loads((tmp_path / "health.json").read_text())["updated_well_formed"] is None


def test_a_validation_of_another_policy_is_refused(files, dev, tmp_path, capsys):
    option, own, start = dev
    message = refusal(capsys, main, *files, option, start, own, "--config", json.dumps(SETTINGS))
    assert message.startswith(f"error: {start}: of another policy than {tmp_path / 'policy.json'}")
    assert not (tmp_path / "health.json").exists()
