"""The state that an update leaves to the next: what comes back of it, what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_index import refusal
from small_update import batch, changed, stage_words, trained
from tiny import tiny

from igpo import train
from igpo.experiment.policy import STATE
from igpo.training import checkpoint
from igpo.training.selection import training_groups

NORM, LAYER = "model.norm.weight", "model.layers.0.self_attn.q_proj"
ADAPTER = f"adapter.{LAYER}.lora_B.default.weight"
RANKS = {"plain": "null", "adapted": 4}


def half(state: Path) -> None:
    state.write_bytes(state.read_bytes()[:-40])


def empty(state: Path) -> None:
    state.write_bytes(b"")


def other(name: str):
    """Gives a tensor of a state another shape, or adds one that no model has."""
    return lambda state: save_file(load_file(state) | {name: torch.zeros(7)}, state)


def lacking(name: str):
    """Takes a tensor out of a state."""
    return lambda state: save_file({k: v for k, v in load_file(state).items() if k != name}, state)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The stage's command line, but for --out, with one update."""
    return [*stage_words(tmp_path_factory.mktemp("stage")), "--set", "train.updates=1"]


@pytest.fixture(scope="module")
def policies(words, tmp_path_factory) -> dict[str, Path]:
    """The policies after an update of all weights and after one of adapters."""
    folders = {name: tmp_path_factory.mktemp(name) for name in RANKS}
    for name, folder in folders.items():
        train.main([*words, "--set", f"train.lora={RANKS[name]}", "--out", str(folder)])
    return folders


@pytest.mark.parametrize(
    "case",
    [
        ("plain", half, "file not fully covered"),
        ("plain", empty, "header too small"),
        ("plain", other(f"exp_avg.{NORM}"), f"exp_avg.{NORM} has shape (7,), expected (48,)"),
        ("plain", other("rest.model.odd"), "rest.model.odd has shape (7,), expected none"),
        ("plain", lacking(f"exp_avg_sq.{NORM}"), f"exp_avg_sq.{NORM} has shape none, expected (48,)"),
        ("plain", lacking("step"), "step has shape none, expected ()"),
        ("adapted", other(f"base.{LAYER}.weight"), f"base.{LAYER}.weight has shape (7,), expected (48, 48)"),
        ("adapted", lacking(ADAPTER), f"{ADAPTER} has shape none, expected (48, 4)"),
    ],
)
def test_an_unusable_state_is_one_line_that_names_it(words, policies, tmp_path, capsys, case):
    kind, spoil, reason = case
    policy = tmp_path / "policy"
    shutil.copytree(policies[kind], policy)
    spoil(policy / STATE)
    chosen = ["--policy", policy, "--set", f"train.lora={RANKS[kind]}", "--out", tmp_path / "next"]
    line = refusal(capsys, train.main, *words, *chosen)
    assert f"{policy / STATE}: not a usable training state: " in line
    assert reason in line
    assert line.endswith(f"; delete {policy} and make it again")
    assert not (tmp_path / "next").exists()


@pytest.mark.usefixtures("fp32_passes")
@pytest.mark.parametrize("lr", [1e-3, 1e-6])
def test_updates_across_files_equal_those_of_one_process(tmp_path, lr):
    """To a hundredth of their steps, be they as small as the paper's: only the first moments are rounded."""
    params = changed(lr=lr)
    tiny("llama").bfloat16().save_pretrained(tmp_path / "0")
    model, optimiser = train.open_training(tmp_path / "0", params)
    for number in range(5):
        groups = training_groups(*batch(number), params)
        train.update(model, optimiser, groups, params)
        resumed, later = train.open_training(tmp_path / str(number), params)
        train.update(resumed, later, groups, params)
        folder = tmp_path / str(number + 1)
        folder.mkdir()
        checkpoint.save_state(resumed, later, folder / STATE, empty=False)
        resumed.bfloat16().save_pretrained(folder)
        # vLLM takes every *.safetensors of a policy folder for weights.
        assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    reopened, last = train.open_training(folder, params)
    for name, weight in reopened.named_parameters():
        torch.testing.assert_close(weight, model.get_parameter(name), rtol=2**-22, atol=5 * lr / 100)
    for opened, saved in zip(last.state.values(), later.state.values(), strict=True):
        assert torch.equal(opened["exp_avg_sq"], saved["exp_avg_sq"])


def test_what_bf16_drops_comes_back():
    """To the bit; midway between two values of bf16, one unit of the last place off."""
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    weight = values.bfloat16().float()
    checkpoint.restore(weight, checkpoint.rest(values))
    assert torch.equal(weight, values)
    midway = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8])
    weight = midway.bfloat16().float()
    checkpoint.restore(weight, checkpoint.rest(midway))
    torch.testing.assert_close(weight, midway, rtol=2**-23, atol=0)


def test_a_last_update_leaves_no_state(tmp_path):
    words = stage_words(tmp_path)
    trained(words, tmp_path / "next")
    trained([*words, "--no-state"], tmp_path / "last")
    files, last_files = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("next", "last")
    )
    del files["train.cost.json"], last_files["train.cost.json"]
    assert len(last_files.pop(STATE)) < 100 < len(files.pop(STATE))
    assert last_files == files
