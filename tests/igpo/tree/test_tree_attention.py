"""Attention over a pack and its gradients are those of one dense product with a mask, or of SDPA."""

import pytest
import torch
from random_tree import random_tree
from torch.nn.functional import scaled_dot_product_attention

from igpo.tree.attention import _Attention, _attention
from igpo.tree.segments import Segment, flex_mask, pack

WIDTH = 32
SCALING = WIDTH**-0.5


def for_each_head(query, *tensors) -> list[torch.Tensor]:
    """Keys or values (1, H_kv, N, D) as often as queries share them, (1, H, N, D)."""
    return [tensor.repeat_interleave(query.shape[1] // tensor.shape[1], 1) for tensor in tensors]


def dense(query, key, value, mask) -> torch.Tensor:
    """The slow reference: all scores at once; (1, H, N, D) -> (1, N, H, D)."""
    key, value = for_each_head(query, key, value)
    scores = (query @ key.transpose(2, 3) * SCALING).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def sdpa(query, key, value, **which) -> torch.Tensor:
    """What a model's own fp32 pass calls."""
    key, value = for_each_head(query, key, value)
    return scaled_dot_product_attention(query, key, value, scale=SCALING, **which).transpose(1, 2)


def tree_inputs(dtype: torch.dtype, length: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries of six heads, keys and values of two, and a gradient of the output, as `dtype` holds them."""
    torch.manual_seed(0)
    shapes = [(1, 6, length, WIDTH), (1, 2, length, WIDTH), (1, 2, length, WIDTH), (1, length, 6, WIDTH)]
    *inputs, gradient = (torch.randn(shape).mul_(2).to(dtype) for shape in shapes)
    return inputs, gradient


def attended(query, key, value, packed) -> torch.Tensor:
    """Attention over a pack."""
    return _attention(None, query, key, value, None, SCALING, blocks=packed.blocks)[0]


def with_gradients(attend, inputs, gradient) -> list[torch.Tensor]:
    """The output, and the gradients of the inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = attend(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


def products(query, key, value, packed) -> torch.Tensor:
    """The attention of bf16 in whatever type is given."""
    return _Attention.apply(query, key, value, SCALING, packed.blocks).transpose(1, 2)


# a causal run longer than a block, runs of branches, trajectories both longer and shorter than their prompt
@pytest.mark.parametrize(("prompt", "trunks"), [(20, [300, 140]), (150, [60, 400, 3])])
@pytest.mark.parametrize(
    ("attend", "dtype", "bounds"),
    [
        (products, torch.float32, [1e-6] * 4),
        (attended, torch.bfloat16, [1e-2] * 4),
        (attended, torch.float32, [1e-6, 2e-6, 2e-6, 2e-6]),  # SDPA's own gradients are 1.6e-6 off
    ],
)
def test_output_and_gradients_are_as_close_to_float64_as_plain_attention(
    prompt, trunks, attend, dtype, bounds
):
    """As a dense product's; as SDPA's with a mask where a pass in fp32 calls it."""
    from torch.nn.attention.flex_attention import create_mask

    packed = pack(random_tree(1, prompt, trunks, 9))
    length = len(packed.ids)
    mask = create_mask(flex_mask(packed.segments, "cpu").mask_mod, None, None, length, length, device="cpu")
    inputs, gradient = tree_inputs(dtype, length)
    calls_sdpa = attend is attended and dtype is torch.float32
    results = with_gradients(lambda *leaves: attend(*leaves, packed), inputs, gradient)
    plain = with_gradients(
        lambda *leaves: sdpa(*leaves, attn_mask=mask) if calls_sdpa else dense(*leaves, mask),
        inputs,
        gradient,
    )
    exact = with_gradients(
        lambda *leaves: dense(*leaves, mask), [tensor.double() for tensor in inputs], gradient.double()
    )
    for ours, theirs, reference, bound in zip(results, plain, exact, bounds, strict=True):
        assert ours.dtype is dtype
        assert (ours - reference).norm() <= 1.1 * (theirs - reference).norm()
        assert (ours - reference).norm() <= bound * reference.norm()


def test_fp32_rounds_as_a_pass_over_one_trajectory_alone():
    """To the bit, with its gradients; its prompt is shared, and it stands behind other trajectories."""
    prompt = Segment(range(150))
    trajectories = [Segment(range(length), prompt, 150) for length in (60, 400, 300)]
    packed = pack([prompt, *trajectories])
    inputs, gradient = tree_inputs(torch.float32, len(packed.ids))
    path = torch.cat([torch.arange(150), torch.arange(610, 910)])
    gradient[:, :610] = 0
    results = with_gradients(lambda *leaves: attended(*leaves, packed), inputs, gradient)
    alone = with_gradients(
        lambda *leaves: sdpa(*leaves, is_causal=True),
        [tensor[:, :, path] for tensor in inputs],
        gradient[:, path],
    )
    assert torch.equal(results[0][:, path], alone[0])
    for ours, plain in zip(results[1:], alone[1:], strict=True):
        assert torch.equal(ours[:, :, path], plain)
