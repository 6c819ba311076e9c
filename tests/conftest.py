"""Shared fixtures: the repository's parameters, the embedded tokenizer, tiny random models."""

from pathlib import Path

import pytest
import torch
from small_index import PARAMS

from retrieval.stage import read_params


@pytest.fixture
def params() -> dict:
    """All of params.yaml."""
    return read_params([PARAMS])


@pytest.fixture(scope="session")
def base_model(tmp_path_factory) -> Path:
    """The embedded SmolLM2 as a model folder, made by the real stage."""
    from igpo import model

    folder = tmp_path_factory.mktemp("base")
    model.main(["--config", '{"source": "smollm2"}', "--out", str(folder)])
    return folder


def tiny(family: str, vocabulary: int = 320, tied: bool = False) -> torch.nn.Module:
    """A random two-layer model of a family, in fp32, with tree attention; `tied`: embeddings are the head."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    import igpo.tree_pass  # noqa: F401  registers the attention

    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[family]
    torch.manual_seed(0)
    config = config_class(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        attn_implementation="tree",
    )
    return model_class(config).eval()


@pytest.fixture(params=["llama", "qwen2"])
def tiny_model(request) -> torch.nn.Module:
    return tiny(request.param)
