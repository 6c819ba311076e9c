"""The update against plain one-by-one passes, and its invariances."""

import copy
import signal
import subprocess
import sys
import time

import pytest
import torch
from small_index import refusal
from small_update import PARAMS, batch, changed, stage_words, trained
from tiny import tiny

from igpo import train
from igpo.training.selection import TrainingGroup, training_groups
from igpo.tree.forward import autocast, logprobs
from igpo.tree.segments import packs
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
    gradients = []
    for checkpoint in (False, True):
        model, _ = train.open_training(tmp_path, changed(checkpoint=checkpoint))
        assert model.is_gradient_checkpointing == checkpoint
        gradients.append(gradient(model, trees))
    close(*gradients, tolerance=0)


def test_tool_tokens_have_no_loss():
    rollouts, scores, credits = batch()
    groups = training_groups(rollouts, scores, credits, changed(aggregation="token-mean"))
    tokens = sum(len(row["policy_ids"]) for row in rollouts)
    assert sum(group.columns.shape[1] for group in groups) == tokens
    assert sum(len(segment.targets) for group in groups for segment in group.segments) == tokens
    assert torch.cat([group.columns[3] for group in groups]).sum() == pytest.approx(1.0, abs=1e-6)


def test_a_missing_advantage_is_an_error():
    rollouts, scores, credits = batch()
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, scores, credits[1:], PARAMS)
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, [scores[0], *scores[2:]], credits, PARAMS)
    scores[1]["ref_logprobs"] = scores[1]["ref_logprobs"][1:]
    with pytest.raises(UserError, match=r"turn \('q1', 0, 1\)"):
        training_groups(rollouts, scores, credits, PARAMS)


def without_tokens(tables, *questions):
    """The batch with trajectories of these questions that had no room for a token."""
    for rows in tables:
        for row in rows:
            if row["question_id"] in questions:
                row |= {key: [] for key in ("policy_ids", "old_logprobs", "ref_logprobs") if key in row}
    return tables


@pytest.mark.parametrize("ratio", ["token", "turn", "sequence"])
def test_trajectories_without_a_token_have_no_pass(tmp_path, capsys, ratio):
    words = [*stage_words(tmp_path, without_tokens(batch(), "q1")), "--set", f"train.ratio={ratio}"]
    assert trained(words, tmp_path / "half", "train.batch_tokens=8")["policy_tokens"] == 16
    words = [*stage_words(tmp_path, without_tokens(batch(), "q1", "q2")), "--set", f"train.ratio={ratio}"]
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

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write_policy", interrupt)
    with pytest.raises(SystemExit):
        trained(words, tmp_path / "out", "train.lr=1e-2")
    assert not (tmp_path / "out/policy.json").exists()


@pytest.mark.slow
def test_a_killed_stage_ends_as_an_undisturbed_one(tmp_path):
    words = stage_words(tmp_path)
    whole, victim = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-m", "igpo.train", *words, "--out"]
    subprocess.run([*command, whole], check=True)
    process = subprocess.Popen([*command, victim])
    while not victim.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, victim], check=True)
    for path in set(whole.iterdir()) - {whole / "train.cost.json"}:
        assert (victim / path.name).read_bytes() == path.read_bytes(), path.name


def on_policy(model: torch.nn.Module) -> list[TrainingGroup]:
    """The batch as if `model` had sampled it."""
    groups = training_groups(*batch(), PARAMS)
    ((packed, _),) = packs([group.segments for group in groups], PARAMS.batch_tokens, "cpu", "scored")
    with torch.no_grad(), autocast("cpu"):
        values = logprobs(model, packed)
    for group, part in zip(groups, values.split([len(group.spans) for group in groups]), strict=True):
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
    lines = [line for line in caplog.messages if line.startswith("step ")]
    assert len(lines) == 2 and lines[0].startswith("step 1 of 2: loss ")
    ratios = f"ratio {metrics['ratio_mean']:.4f} on average and {metrics['ratio_max']:.4f} at most"
    rest = f"loss {metrics['loss']:+.4f}, {ratios}, clip fraction {metrics['clip_fraction']:.4f}"
    assert lines[1] == f"step 2 of 2: {rest}"
    assert lines[0].partition("ratio")[2] != lines[1].partition("ratio")[2]


def test_an_update_lowers_its_loss():
    model, groups = tiny("llama").train(), training_groups(*batch(), PARAMS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    first = train.update(model, optimiser, groups, PARAMS)
    second = train.update(model, optimiser, groups, PARAMS)
    assert second["loss"] < first["loss"]
