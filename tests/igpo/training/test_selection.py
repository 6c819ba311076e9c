"""Which groups and tokens count in an update, and in what parts it takes them."""

from types import SimpleNamespace

import pytest
from golden import CASES, CLIP_SCALES
from small_update import PARAMS, batch, changed, stage_words, trained

from igpo import train
from igpo.credit.methods import METHODS, Rewards
from igpo.experiment.policy import STATE
from igpo.training.selection import clip_scale, counted, dropped, minibatches, training_groups
from pipeline import storage


def test_spans_of_the_ratio_by_level():
    lengths = {}
    for ratio in ("token", "turn", "sequence"):
        first, second = training_groups(*batch(), changed(ratio=ratio))
        lengths[ratio] = [first.spans.tolist(), second.spans.tolist()]
    # Turn t of the batch has 4 + t tokens; the trajectories have 2, 1, 3 and 1, 2 turns.
    assert lengths["turn"] == [[5, 6, 5, 5, 6, 7], [5, 5, 6]]
    assert lengths["sequence"] == [[11, 5, 18], [5, 11]]
    assert lengths["token"] == [[1] * 34, [1] * 16]


def test_clip_scales_equal_the_worked_case():
    trajectories = [
        Rewards(name, row, [1] * len(row), range(len(row)))
        for name in ("g0", "g1")
        for row in CASES["ragged"][name]
    ]
    normalised, _ = METHODS["a2tgpo"](trajectories, SimpleNamespace(std="population", gamma=1.0, alpha=0.3))
    for row, expected in zip(normalised, CLIP_SCALES, strict=True):
        scales = [clip_scale({"normalised": z}, z is row[-1], 0.3) for z in row]
        assert scales == pytest.approx(expected, abs=2e-6)
    assert clip_scale({"normalised": 1.7}, False, 0.0) == 1.0


def with_outcomes(outcomes: dict[str, list[float]]):
    """The batch with these outcomes of each question's samples."""
    rollouts, scores, credits = batch()
    for row, score in zip(rollouts, scores, strict=True):
        score["outcome"] = outcomes[row["question_id"]][row["sample"]] if row["stop"] else None
    return rollouts, scores, credits


ONE_EQUAL = {"q1": [0.5, 0.5, 0.5], "q2": [0.5, 1.0]}


ALL_EQUAL = {"q1": [0.5, 0.5, 0.5], "q2": [0.0, 0.0]}


DROP = "train.drop_equal_groups=true"


def test_groups_with_equal_outcomes_can_leave_the_loss():
    rollouts, scores, _ = with_outcomes(ONE_EQUAL)
    rows = counted(rollouts, scores, changed(drop_equal_groups=True))
    assert rows == [row for row in rollouts if row["question_id"] == "q2"]
    # Turn t has 4 + t tokens; q1's trajectories have 2, 1 and 3 turns.
    assert dropped(rollouts, rows) == {"dropped_groups": 1, "dropped_tokens": 34}
    assert counted(rollouts, scores, PARAMS) == rollouts
    rollouts, scores, _ = with_outcomes(ALL_EQUAL)
    assert counted(rollouts, scores, changed(drop_equal_groups=True)) == []


def test_metrics_are_of_the_groups_that_count(tmp_path):
    """An update with DAPO's filter is that of a batch without the groups it drops, metrics included."""
    both, alone = tmp_path / "both", tmp_path / "alone"
    both.mkdir()
    alone.mkdir()
    tables = with_outcomes(ONE_EQUAL)
    rest = [[row for row in rows if row["question_id"] == "q2"] for rows in tables]
    filtered = trained(stage_words(both, tables), both / "out", DROP)
    expected = trained(stage_words(alone, rest), alone / "out")
    assert filtered == expected | {"dropped_groups": 1, "dropped_tokens": 34}
    assert expected["policy_tokens"] == 16
    for file in ("model.safetensors", STATE):
        assert (both / "out" / file).read_bytes() == (alone / "out" / file).read_bytes()


def test_without_a_group_that_counts_there_is_no_step(tmp_path, capsys):
    """AdamW would decay the weights and, once it has moments, move them along."""
    words = stage_words(tmp_path, with_outcomes(ALL_EQUAL))
    trained(words, tmp_path / "1")  # leaves moments
    metrics = trained([*words, "--policy", str(tmp_path / "1")], tmp_path / "2", DROP)
    assert metrics == {"policy_tokens": 0, "dropped_groups": 2, "dropped_tokens": 50}
    assert "no update: the outcomes of all 2 groups are equal" in capsys.readouterr().out
    for file in ("model.safetensors", STATE):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    assert storage.read_json(tmp_path / "2/policy.json")["iteration"] == 2
    trained(words, tmp_path / "first", DROP)  # a first iteration has no state to keep
    assert trained([*words, "--policy", str(tmp_path / "first")], tmp_path / "next")["policy_tokens"] == 50


def test_minibatches_are_steps_on_parts_of_whole_questions_one_after_another():
    rollouts = batch()[0]
    parts = minibatches(rollouts, 2)
    names = [sorted({row["question_id"] for row in part}) for part in parts]
    assert names == [sorted({row["question_id"] for row in rollouts})[place::2] for place in range(2)]
    assert sum(map(len, parts)) == len(rollouts)
    assert len(minibatches(rollouts, 99)) == 2  # a step for each question


def test_a_stage_in_minibatches_is_a_stage_for_each_part(tmp_path):
    words = stage_words(tmp_path)
    both = trained(words, tmp_path / "both", "train.updates=1", "train.minibatches=2")
    params = changed(aggregation="token-mean")
    model, optimiser = train.open_training(tmp_path / "policy", params)
    rollouts, scores, credits = batch()
    steps = [
        train.update(model, optimiser, training_groups(part, scores, credits, params), params)
        for part in minibatches(rollouts, 2)
    ]
    assert both["policy_tokens"] == sum(step["policy_tokens"] for step in steps)
    shares = [step["policy_tokens"] / both["policy_tokens"] for step in steps]
    mean = sum(share * step["loss"] for share, step in zip(shares, steps, strict=True))
    assert both["loss"] == pytest.approx(mean, rel=1e-5)
    assert both["ratio_max"] == max(step["ratio_max"] for step in steps)
