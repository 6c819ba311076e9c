"""The critic: where it looks, what it learns, and PPO's advantages."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_update import scored
from tiny import tiny

from igpo import advantage, critic
from igpo.credit.methods import gae
from igpo.experiment import schema
from igpo.experiment.policy import STATE, load_tokenizer
from igpo.training.checkpoint import load_state, open_optimiser
from igpo.tree.groups import groups
from igpo.tree.segments import packs
from pipeline import storage
from pipeline.errors import UserError

PARAMS = SimpleNamespace(
    lr=1e-2, weight_decay=0.0, max_grad_norm=1.0, batch_tokens=60, checkpoint=False, processes=1
)


@pytest.fixture
def folder(tmp_path):
    tiny("llama").bfloat16().save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def values(model, rollouts) -> torch.Tensor:
    trees = [critic.value_tree(group) for group in groups(rollouts)]
    return torch.cat([model(packed) for packed, _ in packs(trees, 60, "cpu", "valued")])


def test_gae_by_hand():
    assert gae([0.5, 1.0], [0.2, 0.4], 0.5, 0.5) == pytest.approx([0.5 + 0.2 - 0.2 + 0.25 * 0.6, 0.6])
    assert gae([0.0, 0.0, 1.0], [0.25, 0.5, 0.75], 1.0, 1.0) == pytest.approx([0.75, 0.5, 0.25])
    assert gae([0.0, -2.0], [0.5, None], 1.0, 1.0) == [-2.5, 0.0]
    # carried over a turn without tokens: delta = 0.4 - 0.5, then half of the last turn's 0.6
    first, _, last = gae([0.0, 0.0, 1.0], [0.5, None, 0.4], 1.0, 0.5)
    assert (first, last) == pytest.approx((-0.1 + 0.5 * 0.6, 0.6))


@pytest.mark.usefixtures("fp32_passes")
def test_a_value_is_the_head_over_the_state_before_the_turn(folder):
    rollouts, _ = scored()
    model = critic.Critic(folder)
    torch.nn.init.normal_(model.value.weight)
    predictions = values(model, rollouts).tolist()
    body = tiny("llama")
    body.set_attn_implementation("eager")
    body.load_state_dict(model.body.state_dict())
    expected, context = [], []
    for row in rollouts:
        context = context if row["turn"] else []
        if row["turn"]:
            states = body.model(torch.tensor([context])).last_hidden_state[0, -1]
            expected.append(model.value(states).item())
        context = context + row["policy_ids"] + row["observation_ids"]
    assert predictions == pytest.approx(expected, abs=1e-5)


def test_returns_are_discounted_and_turns_without_tokens_have_none():
    rollouts, scores = scored()
    assert critic.returns(rollouts, scores, 0.5)[:6] == [0.0, 0.0, 1.0, 0.5, 1.0, 2.0]
    rollouts[2]["policy_ids"] = []
    assert len(critic.returns(rollouts, scores, 0.5)) == 8


@pytest.mark.usefixtures("fp32_passes")
def test_a_critic_learns_what_follows(folder):
    rollouts, scores = scored()
    targets = torch.tensor(critic.returns(rollouts, scores, 0.9))
    trees = [critic.value_tree(group) for group in groups(rollouts)]
    model = critic.Critic(folder)
    optimiser = open_optimiser(model, {}, PARAMS)
    errors = []
    for _ in range(20):
        optimiser.zero_grad()
        errors.append(float((critic.learn(model, trees, targets, 60) - targets).square().mean()))
        optimiser.step()
    assert errors[-1] < 0.2 * errors[0]


def test_what_values_explain_of_equal_returns_is_unknown():
    fit = critic.fit(torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.5]))
    assert fit == {"value_loss": pytest.approx(0.03125), "explained_variance": None}
    assert critic.fit(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))["explained_variance"] == 1.0


def test_the_stage_values_then_learns_and_goes_on_from_its_files(folder, base_model, tmp_path, capsys):
    load_tokenizer(base_model).save_pretrained(folder)
    rollouts, scores = scored()
    for row in rollouts:
        row |= {"text": "", "queries": [], "hit_ids": [], "policy_logprobs": []}
    for name, rows in (("rollouts", rollouts), ("scores", scores)):
        storage.write(rows, getattr(schema, name.upper()), tmp_path / name, schema.TURN_KEY)

    def step(before: Path, number: int) -> list[float]:
        files = {"rollouts": tmp_path / "rollouts", "scores": tmp_path / "scores", "critic": before}
        files |= {"values": tmp_path / f"values{number}", "out": tmp_path / str(number)}
        words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        critic.main([*words, "--gamma", "0.9", "--config", json.dumps(vars(PARAMS))])
        return storage.read(files["values"], schema.VALUES)["value"].to_pylist()

    assert step(folder, 1) == [0.0] * 9  # the first head is all zeros
    targets = torch.tensor(critic.returns(rollouts, scores, 0.9))
    fit = storage.read_json(tmp_path / "1/policy.json")["metrics"]
    assert fit["value_loss"] == pytest.approx(0.5 * float(targets.square().mean()), rel=1e-5)
    expected = 1 - float(targets.square().mean() / targets.var(correction=0))
    assert fit["explained_variance"] == pytest.approx(expected, rel=1e-4)
    second = step(tmp_path / "1", 2)
    loaded = critic.Critic(tmp_path / "1")
    open_optimiser(loaded, load_state(tmp_path / "1" / STATE), PARAMS)
    assert second == pytest.approx(values(loaded, rollouts).tolist(), abs=1e-6)
    assert all(value != 0 for value in second)
    assert load_file(tmp_path / "2" / STATE)["step"] == 2
    save_file({"exp_avg.value.bias": torch.zeros(7)}, tmp_path / "2" / STATE)
    with pytest.raises(SystemExit, match="2"):
        step(tmp_path / "2", 3)
    assert f"2/{STATE}: not a usable training state: exp_avg.value.bias has" in capsys.readouterr().err


@pytest.mark.usefixtures("fp32_passes")
def test_the_gradient_depends_neither_on_the_token_budget_nor_on_checkpointing(folder):
    rollouts, scores = scored()
    targets = torch.tensor(critic.returns(rollouts, scores, 0.9))
    trees = [critic.value_tree(group) for group in groups(rollouts)]
    gradients = []
    for tokens, checkpoint in ((30, False), (10_000, False), (10_000, True)):
        model = critic.Critic(folder, checkpoint)
        assert model.body.is_gradient_checkpointing == checkpoint
        torch.nn.init.constant_(model.value.weight, 0.1)
        critic.learn(model, trees, targets, tokens)
        gradients.append(
            torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        )
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert torch.equal(gradients[1], gradients[2])


def half(head: Path) -> None:
    head.write_bytes(head.read_bytes()[:-40])


def other_shape(head: Path) -> None:
    save_file({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, head)


def not_finite(head: Path) -> None:
    save_file({"weight": torch.full((1, 48), torch.nan), "bias": torch.zeros(1)}, head)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (half, "not a readable value head: .*; delete .*policy and make this critic again"),
        (other_shape, "not a readable value head: .*size mismatch for weight.*; delete .*policy and make"),
        (not_finite, "weight weight holds NaN or infinity"),
    ],
)
def test_a_broken_head_is_one_line_that_names_it(folder, spoil, message):
    save_file({"weight": torch.ones(1, 48), "bias": torch.zeros(1)}, folder / critic.HEAD)
    assert critic.Critic(folder).value.weight.sum() == 48
    spoil(folder / critic.HEAD)
    with pytest.raises(UserError, match=rf"policy/{critic.HEAD}: {message}") as refused:
        critic.Critic(folder)
    assert "\n" not in str(refused.value)


def test_ppo_needs_values_of_its_rollouts():
    rollouts, scores = scored()
    params = SimpleNamespace(method="ppo", gamma=1.0, lam=1.0)
    with pytest.raises(UserError, match="run `igpo critic`"):
        advantage.advantages(rollouts, scores, params)
    rows = [{name: row[name] for name in schema.TURN_KEY} | {"value": 0.0} for row in rollouts if row["turn"]]
    credits = advantage.advantages(rollouts, scores, params, rows)
    assert [row["normalised"] for row in credits][:6] == [0.0, 0.0, 1.0, 2.0, 2.0, 2.0]
    with pytest.raises(UserError, match="make values again"):
        advantage.advantages(rollouts, scores, params, rows[1:])
