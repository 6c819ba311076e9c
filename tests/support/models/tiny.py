"""Random models of two layers."""

import torch


def tiny(family: str, vocabulary: int = 320, tied: bool = False) -> torch.nn.Module:
    """A random two-layer model of a family, in fp32, with tree attention; `tied`: embeddings are the head."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    from igpo.tree import attention  # noqa: F401  registers it

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
