"""LoRA: what moves, what is written, how the next iteration goes on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_update import changed, stage_words
from update_process import chosen, trained

from igpo import train
from igpo.experiment.policy import STATE, load
from igpo.tree.forward import logprobs
from igpo.tree.segments import Segment, pack
from pipeline.devices import compute_dtype

RANK, LR = 4, 1e-2


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The stage's command line, but for --out, with adapters and one update."""
    return [*stage_words(tmp_path_factory.mktemp("stage")), *chosen(lora=RANK, updates=1, lr=LR)]


@pytest.fixture(scope="module")
def start(words) -> Path:
    return Path(words[words.index("--policy") + 1])


@pytest.fixture(scope="module")
def first(words, tmp_path_factory) -> Path:
    """The policy after one update."""
    folder = tmp_path_factory.mktemp("first")
    train.main([*words, "--out", str(folder)])
    return folder


def test_the_adapters_move_and_the_policy_is_their_sum_with_the_weights(start, first):
    before, after = (load_file(folder / "model.safetensors") for folder in (start, first))
    state = load_file(first / STATE)
    adapted = {name for name in before if "_proj." in name}
    assert {name.removeprefix("base.") for name in state if name.startswith("base.")} == adapted
    for name, weight in before.items():
        if name not in adapted:
            assert torch.equal(after[name], weight), name
            continue
        assert torch.equal(state[f"base.{name}"], weight), name
        layer = name.removesuffix(".weight")
        down, up = (state[f"adapter.{layer}.lora_{half}.default.weight"] for half in "AB")
        assert down.shape[0] == up.shape[1] == RANK
        assert up.abs().max() > 0
        assert torch.equal(after[name], (weight.float() + 2 * up @ down).bfloat16()), name


def test_the_written_policy_is_the_trained_one(start, first):
    """Its log-probabilities are those of weights and adapters, but for bf16's rounding of the sums."""
    packed = pack([Segment(list(range(9, 60)), targets=list(range(1, 51)))])
    adapted, _ = train.open_training(first, changed(lora=RANK))
    models = (load(start, torch.float32, "tree"), load(first, torch.float32, "tree"), adapted)
    with torch.no_grad():
        before, after, trained = (logprobs(model, packed) for model in models)
    assert (after - trained).abs().max() < (before - trained).abs().max() / 10


def test_a_second_iteration_goes_on_as_if_there_had_been_no_files_between(words, first, tmp_path):
    train.main([*words, "--policy", str(first), "--out", str(tmp_path / "second")])
    train.main([*words, *chosen(updates=2), "--out", str(tmp_path / "both")])
    for name in (STATE, "model.safetensors"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "both" / name).read_bytes()


@pytest.mark.parametrize("other", ["null", 8])
def test_the_rank_stays_the_same(words, first, tmp_path, capsys, other):
    with pytest.raises(SystemExit, match="2"):
        train.main([*words, *chosen(lora=other), "--policy", str(first), "--out", str(tmp_path / "next")])
    assert f"was trained with train.lora 4, not {other}" in capsys.readouterr().err
    assert not (tmp_path / "next").exists()


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(words, first, tmp_path):
    """In bf16 on average: AdamW's first step is a whole one even where a gradient is rounding alone."""
    two = trained(words, tmp_path / "two", processes=2)
    expected = load_file(first / STATE)
    for name, value in load_file(two / STATE).items():
        if compute_dtype() is torch.float32:
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=LR / 50)
        assert (value - expected[name]).abs().mean() <= expected[name].abs().mean() / 100, name
