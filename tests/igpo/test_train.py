"""The update against plain one-by-one passes, and its invariances."""

import copy
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from golden import CASES, CLIP_SCALES
from small_index import refusal
from small_update import PARAMS, batch, changed, stage_words, trained
from tiny import tiny

from igpo import train
from igpo.credit.methods import METHODS, Rewards
from igpo.experiment.policy import STATE
from igpo.training.selection import TrainingGroup, clip_scale, counted, dropped, minibatches, training_groups
from igpo.tree.forward import autocast, logprobs
from igpo.tree.segments import packs
from pipeline import storage
from pipeline.errors import UserError


def gradient(model, groups, params=PARAMS) -> dict[str, torch.Tensor]:
    model.zero_grad()
    train.accumulate(model, groups, params)
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def plain_gradient(model, rollouts, scores, credits, entropy=0.0) -> dict[str, torch.Tensor]:
    """Paper Eq. 7 written out, with an entropy bonus: a float64 pass per trajectory, full logits."""
    model = copy.deepcopy(model).double()
    model.zero_grad()
    model.set_attn_implementation("eager")
    keys = sorted({(row["question_id"], row["sample"]) for row in rollouts})
    advantage = {(r["question_id"], r["sample"], r["turn"]): r["advantage"] for r in credits}
    for key in keys:
        mine = [row for row in rollouts if (row["question_id"], row["sample"]) == key]
        noted = [row for row in scores if (row["question_id"], row["sample"]) == key]
        ids = [token for row in mine for token in row["policy_ids"] + row["observation_ids"]]
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        at, terms = 0, []
        for row, score in zip(mine, noted, strict=True):
            for i, token in enumerate(row["policy_ids"]):
                value, credit = logits[at + i - 1, token], advantage[(*key, row["turn"])]
                ratio = (value - score["old_logprobs"][i]).exp()
                d = score["ref_logprobs"][i] - value
                clipped = ratio.clamp(0.8, 1.2)
                kl = (d.exp() - d - 1).clamp(-10, 10)
                logs = logits[at + i - 1]
                bonus = entropy * (logs.exp() * logs).sum()
                terms.append(-torch.min(ratio * credit, clipped * credit) + PARAMS.kl * kl + bonus)
            at += len(row["policy_ids"]) + len(row["observation_ids"])
        (torch.stack(terms).mean() / len(keys)).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def close(left, right, tolerance=2e-6):
    for name, value in left.items():
        assert (value - right[name]).abs().max() <= tolerance * right[name].abs().max(), name


@pytest.mark.usefixtures("fp32_passes")
@pytest.mark.parametrize(("entropy", "tolerance"), [(0.0, 2e-6), (0.5, 8e-6)])
def test_the_gradient_equals_one_pass_per_trajectory(tiny_model, entropy, tolerance):
    tables, params = batch(), changed(entropy=entropy)
    groups = training_groups(*tables, params)
    close(gradient(tiny_model, groups, params), plain_gradient(tiny_model, *tables, entropy), tolerance)


@pytest.mark.usefixtures("fp32_passes")
@pytest.mark.parametrize("ratio", ["token", "turn", "sequence"])
def test_the_token_budget_changes_nothing(tiny_model, ratio):
    """Trajectories stay whole, so that ratios of turns and sequences are exact whatever the budget."""
    groups = training_groups(*batch(), changed(ratio=ratio))
    small = changed(ratio=ratio, batch_tokens=30)
    whole = gradient(tiny_model, groups)
    close(gradient(tiny_model, groups, small), whole)
    cut = training_groups(*batch(), small)
    assert (len(groups), len(cut)) == (2, 5)  # groups, trajectories
    close(gradient(tiny_model, cut, small), whole)


def test_checkpointing_changes_no_gradient(tmp_path):
    trees = training_groups(*batch(), PARAMS)
    tiny("llama").bfloat16().save_pretrained(tmp_path)
    found = []
    for checkpoint in (False, True):
        model, _ = train.open_training(tmp_path, changed(checkpoint=checkpoint))
        assert model.is_gradient_checkpointing == checkpoint
        found.append(gradient(model, trees))
    close(*found, tolerance=0)


def test_tool_tokens_have_no_loss():
    rollouts, scores, credits = batch()
    groups = training_groups(rollouts, scores, credits, changed(aggregation="token-mean"))
    tokens = sum(len(row["policy_ids"]) for row in rollouts)
    assert sum(group.columns.shape[1] for group in groups) == tokens
    assert sum(len(segment.wanted) for group in groups for segment in group.segments) == tokens
    assert torch.cat([group.columns[3] for group in groups]).sum() == pytest.approx(1.0, abs=1e-6)


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
        found = [clip_scale({"normalised": z}, z is row[-1], 0.3) for z in row]
        assert found == pytest.approx(expected, abs=2e-6)
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
    kept = counted(rollouts, scores, changed(drop_equal_groups=True))
    assert kept == [row for row in rollouts if row["question_id"] == "q2"]
    # Turn t has 4 + t tokens; q1's trajectories have 2, 1 and 3 turns.
    assert dropped(rollouts, kept) == {"dropped_groups": 1, "dropped_tokens": 34}
    assert counted(rollouts, scores, PARAMS) == rollouts
    rollouts, scores, _ = with_outcomes(ALL_EQUAL)
    assert counted(rollouts, scores, changed(drop_equal_groups=True)) == []


def test_a_missing_advantage_is_an_error():
    rollouts, scores, credits = batch()
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, scores, credits[1:], PARAMS)
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, [scores[0], *scores[2:]], credits, PARAMS)
    scores[1]["ref_logprobs"] = scores[1]["ref_logprobs"][1:]
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, scores, credits, PARAMS)


def without_tokens(made, *questions):
    """The batch with trajectories of these questions that had no room for a token."""
    for rows in made:
        for row in rows:
            if row["question_id"] in questions:
                row |= {key: [] for key in ("policy_ids", "old_logprobs", "ref_logprobs") if key in row}
    return made


def test_trajectories_without_a_token_have_no_pass(tmp_path, capsys):
    words = stage_words(tmp_path, without_tokens(batch(), "q1"))
    assert trained(words, tmp_path / "half", "train.batch_tokens=8")["policy_tokens"] == 16
    words = stage_words(tmp_path, without_tokens(batch(), "q1", "q2"))
    assert trained(words, tmp_path / "none") == {"policy_tokens": 0}
    assert "no update: the rollouts hold no policy token" in capsys.readouterr().out


def test_a_step_into_infinity_leaves_no_policy(tmp_path, capsys):
    words = [*stage_words(tmp_path), "--set", "train.lr=1e38", "--out", tmp_path / "out"]
    assert "after a step: lower train.lr" in refusal(capsys, train.main, *words)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_written_again_is_none_meanwhile(tmp_path, monkeypatch):
    """Killed after its state was replaced, a policy of one run would go on from the state of another."""
    words = stage_words(tmp_path)
    trained(words, tmp_path / "out")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write_policy", killed)
    with pytest.raises(SystemExit):
        trained(words, tmp_path / "out", "train.lr=1e-2")
    assert not (tmp_path / "out/policy.json").exists()


def test_metrics_are_of_the_groups_that_count(tmp_path):
    """An update with DAPO's filter is that of a batch without the groups it drops, metrics included."""
    both, alone = tmp_path / "both", tmp_path / "alone"
    both.mkdir()
    alone.mkdir()
    made = with_outcomes(ONE_EQUAL)
    rest = [[row for row in rows if row["question_id"] == "q2"] for rows in made]
    filtered = trained(stage_words(both, made), both / "out", DROP)
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


@pytest.mark.slow
def test_a_killed_stage_ends_as_an_undisturbed_one(tmp_path):
    words = stage_words(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-m", "igpo.train", *words, "--out"]
    subprocess.run([*command, whole], check=True)
    process = subprocess.Popen([*command, killed])
    while not killed.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, killed], check=True)
    for path in set(whole.iterdir()) - {whole / "train.cost.json"}:
        assert (killed / path.name).read_bytes() == path.read_bytes(), path.name


def on_policy(model: torch.nn.Module) -> list[TrainingGroup]:
    """The batch as if `model` had sampled it."""
    groups = training_groups(*batch(), PARAMS)
    ((packed, _),) = packs([group.segments for group in groups], PARAMS.batch_tokens, "cpu", "scored")
    with torch.no_grad(), autocast("cpu"):
        found = logprobs(model, packed)
    for group, part in zip(groups, found.split([len(group.spans) for group in groups]), strict=True):
        group.columns[0] = part
    return groups


@pytest.mark.usefixtures("fp32_passes")
def test_one_update_per_batch_clips_nothing_and_more_can():
    """Disagreement 15: the first released code makes 16 updates of a batch, so that most of them clip."""
    model = tiny("llama").train()
    groups, params = on_policy(model), changed(clip_low=1e-3, clip_high=1e-3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = train.update(model, optimiser, groups, params)
    assert (first["ratio_mean"], first["ratio_max"]) == pytest.approx((1.0, 1.0), abs=1e-5)
    assert first["clip_fraction"] == 0
    second = train.update(model, optimiser, groups, params)
    assert second["ratio_max"] > 1.001
    assert 0 < second["clip_fraction"] <= 1


def test_every_update_of_a_batch_is_logged(tmp_path, caplog):
    metrics = trained(stage_words(tmp_path), tmp_path / "out")
    logged = [line for line in caplog.messages if line.startswith("step ")]
    assert len(logged) == 2 and logged[0].startswith("step 1 of 2: loss ")
    ratios = f"ratio {metrics['ratio_mean']:.4f} on average and {metrics['ratio_max']:.4f} at most"
    rest = f"loss {metrics['loss']:+.4f}, {ratios}, clip fraction {metrics['clip_fraction']:.4f}"
    assert logged[1] == f"step 2 of 2: {rest}"
    assert logged[0].partition("ratio")[2] != logged[1].partition("ratio")[2]


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


def test_an_update_lowers_its_loss():
    model, groups = tiny("llama").train(), training_groups(*batch(), PARAMS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = train.update(model, optimiser, groups, PARAMS)
    second = train.update(model, optimiser, groups, PARAMS)
    assert second["loss"] < first["loss"]
