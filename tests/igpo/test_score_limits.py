"""What the score stage refuses, and what exceeds a model's context."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scored_rows import context, naive_gold, rollout, stage_words
from small_index import refusal
from small_qwen import tokenizer
from tiny import tiny

from igpo import score
from igpo.experiment import schema
from igpo.experiment.policy import load, load_tokenizer
from igpo.protocols import prepare
from igpo.protocols.renderer import Renderer
from pipeline import storage


def copied(base_model: Path, folder: Path) -> Path:
    """A copy of the base model that a test may spoil."""
    shutil.copytree(base_model, folder, ignore=shutil.ignore_patterns("policy.json"))
    return folder


def other_vocabulary(folder: Path) -> None:
    words = load_tokenizer(folder)
    words.add_tokens(["<another>"])
    words.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, folder / "model.safetensors", {"format": "pt"})


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def short_context(folder: Path) -> None:
    config = storage.read_json(folder / "config.json")
    storage.write_json(config | {"max_position_embeddings": 128}, folder / "config.json")


def nan_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "spoilt", "message"),
    [
        (no_template, "policy", "has no chat template"),
        (short_context, "policy", "exceeds the context of 128 tokens"),
        (nan_weight, "policy", "holds NaN or infinity"),
        (other_vocabulary, "reference", "the reference's vocabulary differs"),
    ],
)
def test_an_unusable_model_is_one_line_and_no_file(base_model, tmp_path, capsys, spoil, spoilt, message):
    folder = copied(base_model, tmp_path / "model")
    spoil(folder)
    policy, reference = (folder, base_model) if spoilt == "policy" else (base_model, folder)
    words = stage_words(tmp_path, policy, reference, rollout("q1", 0, [1] * 150, [([3], [])], None))
    assert message in refusal(capsys, score.main, *words, "--params", "params.yaml")
    assert not (tmp_path / "scores.parquet").exists()


@pytest.fixture
def short(tmp_path) -> Path:
    """A tiny policy that reads 128 tokens."""
    words = tokenizer()
    tiny("qwen2", len(words)).bfloat16().save_pretrained(tmp_path / "short")
    words.save_pretrained(tmp_path / "short")
    short_context(tmp_path / "short")
    return tmp_path / "short"


def test_a_prompt_beyond_the_context_is_one_line_that_names_its_question(short, tmp_path, capsys):
    rows = [*rollout("q1", 0, [1, 2], [([3], [])], None), *rollout("q2", 0, [1] * 150, [([], [])], None)]
    message = refusal(
        capsys, score.main, *stage_words(tmp_path, short, short, rows), "--params", "params.yaml"
    )
    assert "question 'q2': its prompt of 150 tokens, 1" in message
    assert "exceeds the context of 128 tokens of" in message
    assert "rollout.k" in message


def test_an_other_observation_beyond_the_context_is_left_out(short, tmp_path, caplog):
    """The first sample's observation fits into its own trajectory, not into the other question's."""
    rows = [
        *rollout("q1", 0, [1, 2], [([3], [4] * 80), ([5], [])], "x"),
        *rollout("q1", 1, [1, 2], [([3], [6] * 5), ([5], [])], "x"),
        *rollout("q2", 0, [1] * 20, [([3] * 40, [7] * 5), ([5], [])], "x"),
    ]
    words = [*stage_words(tmp_path, short, short, rows), "--params", "params.yaml"]
    score.main([*words, "--set", "score.step_reward=counterfactual", "--set", "score.dtype=float32"])
    assert "1 of 4 other observations are left out of the gains" in caplog.text
    row = storage.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()[-2]
    renders = Renderer(load_tokenizer(short), prepare("igpo"))
    model = load(short, torch.float32, "eager").eval()
    with torch.inference_mode():
        own, other = (
            naive_gold(model, renders, context(rows[-3:], 1, ids), "Jane Austen")
            for ids in ([7] * 5, [6] * 5)
        )
    assert row["step_reward"] == pytest.approx(own - other, abs=2e-4)
    assert row["step_reward"] != 0


def test_rollouts_of_another_vocabulary_are_one_line(short, tmp_path, capsys):
    rows = rollout("q1", 0, [1, 10**6], [([3], [])], None)
    message = refusal(
        capsys, score.main, *stage_words(tmp_path, short, short, rows), "--params", "params.yaml"
    )
    assert "rollouts: token id 1000000 is none of the" in message
