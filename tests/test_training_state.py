"""The state that an update leaves to the next: refused where it is broken or another model's."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_index import refusal
from test_train import stage_words

from igpo import train
from igpo.model import STATE

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
    ("kind", "spoil", "said"),
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
def test_an_unusable_state_is_one_line_that_names_it(words, policies, tmp_path, capsys, kind, spoil, said):
    policy = tmp_path / "policy"
    shutil.copytree(policies[kind], policy)
    spoil(policy / STATE)
    chosen = ["--policy", policy, "--set", f"train.lora={RANKS[kind]}", "--out", tmp_path / "next"]
    line = refusal(capsys, train.main, *words, *chosen)
    assert f"{policy / STATE}: not a usable training state: " in line
    assert said in line
    assert line.endswith(f"; delete {policy} and make it again")
    assert not (tmp_path / "next").exists()
