"""A packed tree gives what one pass per path gives."""

import pytest
import torch
from random_tree import random_tree

from igpo.tree.forward import check_model, logprobs
from igpo.tree.segments import Segment, batches, flex_mask, pack
from pipeline.errors import UserError


def plain_logprobs(model, segment: Segment) -> torch.Tensor:
    """One ordinary forward pass over the path: the slow reference."""
    ids = segment.path_ids()
    model.set_attn_implementation("eager")
    logits = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    model.set_attn_implementation("tree")
    first = len(ids) - len(segment.ids)
    return torch.stack([logits[first + i - 1, segment.ids[i]] for i in segment.targets])


@pytest.mark.parametrize("trunks", [[5], [140, 300], [3, 4, 5], [257]])
def test_tree_equals_one_pass_per_path(tiny_model, trunks):
    segments = random_tree(1, 20, trunks, 9)
    with torch.inference_mode():
        packed = pack(segments)
        by_path = packed.split(logprobs(tiny_model, packed))
        for segment, values in zip(segments, by_path, strict=True):
            torch.testing.assert_close(values, plain_logprobs(tiny_model, segment), rtol=0, atol=1e-5)


def test_trajectories_without_a_token_change_nothing(tiny_model):
    (root,) = random_tree(1, 20, [], 9)
    packed = pack([root, *(Segment([], root, 20) for _ in range(2))])
    with torch.inference_mode():
        values, *none = packed.split(logprobs(tiny_model, packed))
        torch.testing.assert_close(values, plain_logprobs(tiny_model, root), rtol=0, atol=1e-5)
    assert list(map(len, none)) == [0, 0]


def test_the_gradient_of_a_row_that_stands_there_many_times_is_the_same_every_time(tiny_model):
    """Every trajectory and forced answer asks for its first token after the prompt's last one."""
    packed = pack(random_tree(1, 20, [40] * 60, 9))
    weights = torch.randn(len(packed.rows), generator=torch.Generator().manual_seed(0))
    assert len(packed.rows.unique()) < len(packed.rows)
    gradients = []
    for _ in range(10):
        tiny_model.zero_grad()
        (logprobs(tiny_model, packed) * weights).sum().backward()
        gradients.append([weight.grad.clone() for weight in tiny_model.parameters()])
    assert all(torch.equal(*pair) for other in gradients for pair in zip(gradients[0], other, strict=True))


def test_the_mask_of_flex_attention_is_that_of_the_blocks():
    from torch.nn.attention.flex_attention import create_mask

    segments = random_tree(1, 20, [140, 30], 9) + random_tree(2, 31, [50], 8)
    packed = pack(segments)
    expected = torch.zeros(len(packed.ids), len(packed.ids), dtype=torch.bool)
    for block in packed.blocks:
        keys = torch.cat([torch.arange(key.start, key.stop) for key in block.keys])
        for rows, count, hidden in block.parts:
            attends = torch.ones(len(hidden), count, dtype=torch.bool)
            attends[:, -hidden.shape[1] :] = ~hidden
            expected[rows, keys[:count]] = attends
    mask = flex_mask(segments, "cpu")
    matrix = create_mask(mask.mask_mod, 1, 1, *expected.shape, device="cpu")[0, 0]
    assert torch.equal(matrix, expected)
    assert torch.equal(packed.positions + 1, expected.sum(1))


def test_flex_attention_gives_what_sdpa_gives(tiny_model):
    segments = random_tree(1, 20, [140, 30], 9)
    packed = pack(segments)
    with torch.inference_mode():
        expected = logprobs(tiny_model, packed)
        packed.blocks = flex_mask(segments, "cpu")
        torch.testing.assert_close(logprobs(tiny_model, packed), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gradient", [False, True])
def test_bf16_passes_over_fp32_weights_are_close_to_those_in_fp32(tiny_model, gradient):
    packed = pack(random_tree(1, 20, [140, 30], 9))
    with torch.set_grad_enabled(gradient):
        expected = logprobs(tiny_model, packed)
        with torch.autocast("cpu", torch.bfloat16):
            values = logprobs(tiny_model, packed)
    assert values.dtype is torch.float32
    torch.testing.assert_close(values, expected, rtol=0, atol=0.02)


def test_other_trees_in_the_pack_change_nothing(tiny_model):
    first, second = random_tree(1, 20, [50, 60], 7), random_tree(2, 31, [150], 8)
    with torch.inference_mode():
        alone = logprobs(tiny_model, pack(first))
        together = logprobs(tiny_model, pack(second + first))[-len(alone) :]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_dropping_a_trajectory_changes_no_other(tiny_model):
    """Disagreement 11: in the released code the tail of one that has stopped is still attended to."""
    tree = random_tree(3, 25, [40, 90, 60], 6)
    last = tree[-5:]
    with torch.inference_mode():
        whole = pack(tree)
        alone = pack([tree[0], *last])
        before = whole.split(logprobs(tiny_model, whole))[-5:]
        after = alone.split(logprobs(tiny_model, alone))[1:]
    for left, right in zip(before, after, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)


def test_gradient_equals_separate_passes(tiny_model):
    segments = random_tree(4, 20, [60, 45], 7)
    model = tiny_model.train()
    logprobs(model, pack(segments)).sum().backward()
    packed = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for segment in segments:
        plain_logprobs(model, segment).sum().backward()
    for name, weight in model.named_parameters():
        scale = weight.grad.abs().max()
        assert (packed[name] - weight.grad).abs().max() <= 2e-6 * scale, name


def test_batches_keep_the_budget_and_the_order():
    trees = [[Segment([0] * size)] for size in (5, 4, 3, 20, 1)]
    sizes = [[len(tree[0].ids) for tree in batch] for batch in batches(trees, 9)]
    assert sizes == [[5, 4], [3], [20], [1]]


def test_the_first_token_of_a_tree_has_no_logprob():
    with pytest.raises(ValueError, match="first token"):
        pack([Segment([1, 2], targets=[0])])


def test_a_model_with_sliding_windows_is_refused(tiny_model):
    tiny_model.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(UserError, match="sliding_attention"):
        check_model(tiny_model, 10)


SIZES = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "attn_implementation": "tree",
}


def test_a_window_as_long_as_the_trajectories_is_full_attention():
    from transformers import MistralConfig, MistralForCausalLM

    model = MistralForCausalLM(MistralConfig(sliding_window=64, **SIZES))
    check_model(model, 64)
    with pytest.raises(UserError, match="sliding_attention over 65 tokens"):
        check_model(model, 65)


def test_a_head_that_is_no_plain_matrix_is_refused(tiny_model):
    check_model(tiny_model, 10)
    tiny_model.lm_head.bias = torch.nn.Parameter(torch.linspace(0, 3, 320))
    with pytest.raises(UserError, match="off the model's own"):
        check_model(tiny_model, 10)


def test_attention_with_capped_logits_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    with pytest.raises(UserError, match="capped logits"):
        check_model(Gemma2ForCausalLM(Gemma2Config(**SIZES)), 10)


def test_a_trajectory_beyond_the_context_is_refused(tiny_model):
    with pytest.raises(UserError, match=r"2049 tokens, .* exceeds the context of 2048"):
        check_model(tiny_model, 2049)
