"""Passes without padding, and weights laid out for the processor, beside plain transformers."""

import pytest
import torch
from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

from retrieval import packed, prepacked
from retrieval.encoder import compute_dtype

LENGTHS = [3, 17, 8, 1, 30]
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
}


def small_bert(kind, config):
    torch.manual_seed(0)
    return kind(config(**SIZES)).eval().requires_grad_(False)


@pytest.mark.parametrize(("kind", "config"), [(BertModel, BertConfig), (XLMRobertaModel, XLMRobertaConfig)])
def test_texts_end_to_end_have_the_states_of_each_alone(kind, config):
    model = small_bert(kind, config)
    assert model.config.model_type in packed.MODELS
    tokens = [torch.randint(2, 50, (length,)).tolist() for length in LENGTHS]
    alone = [model(input_ids=torch.tensor([row])).last_hidden_state[0] for row in tokens]
    model.set_attn_implementation(packed.ATTENTION)
    groups = packed.grouped(LENGTHS, [8, 24, 8, 8, 32])
    found = packed.states(model, tokens, groups, 64)
    assert sorted(number for group in groups for number in group.texts) == list(range(len(LENGTHS)))
    for group in groups:
        for number, rows, real in zip(group.texts, group.rows, group.real, strict=True):
            assert torch.allclose(found[rows[real]], alone[number], atol=1e-5)


def test_without_groups_the_attention_is_that_of_sdpa():
    model = small_bert(BertModel, BertConfig)
    ids = torch.randint(2, 50, (3, 12))
    mask = torch.tensor([[1] * 12, [1] * 5 + [0] * 7, [1] + [0] * 11])
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    model.set_attn_implementation(packed.ATTENTION)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).last_hidden_state, expected)


def test_linear_layers_give_the_same_when_laid_out():
    model = small_bert(BertModel, BertConfig).to(compute_dtype())
    ids = torch.randint(2, 50, (2, 9))
    expected = model(input_ids=ids).last_hidden_state
    prepacked.replace_linear(model)
    assert not any(type(module) is torch.nn.Linear for module in model.modules())
    assert torch.allclose(model(input_ids=ids).last_hidden_state, expected, atol=0.02)
