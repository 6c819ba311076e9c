"""Weights laid out for the processor, beside plain transformers."""

import torch
from transformers import BertConfig, BertModel

from pipeline.devices import compute_dtype
from retrieval.encoder import prepacked


def test_linear_layers_give_the_same_when_laid_out():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = BertModel(BertConfig(**sizes, intermediate_size=40)).eval().to(compute_dtype())
    ids = torch.randint(2, 50, (2, 9))
    with torch.inference_mode():
        expected = model(input_ids=ids).last_hidden_state
        prepacked.replace_linear(model.requires_grad_(False))
        states = model(input_ids=ids).last_hidden_state
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    assert torch.allclose(states, expected, atol=0.02)
