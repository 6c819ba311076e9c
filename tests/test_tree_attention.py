"""Block-wise attention and its gradients are those of one dense product with a mask."""

import pytest
import torch
from test_packing import random_tree

from igpo.packing import flex_mask, pack
from igpo.tree_pass import _attention

WIDTH = 32
SCALING = WIDTH**-0.5


def dense(query, key, value, mask) -> torch.Tensor:
    """The slow reference: all scores at once; (1, H, N, D) -> (1, N, H, D)."""
    key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], 1) for tensor in (key, value))
    scores = (query @ key.transpose(2, 3) * SCALING).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def tree_inputs(dtype: torch.dtype, length: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries of six heads, keys and values of two, and a gradient of the output, as `dtype` holds them."""
    torch.manual_seed(0)
    shapes = [(1, 6, length, WIDTH), (1, 2, length, WIDTH), (1, 2, length, WIDTH), (1, length, 6, WIDTH)]
    *inputs, gradient = (torch.randn(shape).mul_(2).to(dtype) for shape in shapes)
    return inputs, gradient


def with_gradients(attend, inputs, gradient) -> list[torch.Tensor]:
    """The output, and the gradients of the inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    output = attend(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, gradient)]


# a causal run longer than a block, runs of branches, trajectories both longer and shorter than their prompt
@pytest.mark.parametrize(("prompt", "trunks"), [(20, [300, 140]), (150, [60, 400, 3])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_are_as_close_to_float64_as_dense_attention(prompt, trunks, dtype):
    from torch.nn.attention.flex_attention import create_mask

    packed = pack(random_tree(1, prompt, trunks, 9))
    length = len(packed.ids)
    mask = create_mask(flex_mask(packed.segments, "cpu").mask_mod, None, None, length, length, device="cpu")
    inputs, gradient = tree_inputs(dtype, length)
    found = with_gradients(
        lambda *leaves: _attention(None, *leaves, None, SCALING, packed.blocks)[0], inputs, gradient
    )
    plain = with_gradients(lambda *leaves: dense(*leaves, mask), inputs, gradient)
    exact = with_gradients(
        lambda *leaves: dense(*leaves, mask), [tensor.double() for tensor in inputs], gradient.double()
    )
    for ours, theirs, reference in zip(found, plain, exact, strict=True):
        assert ours.dtype is dtype
        assert (ours - reference).norm() <= 1.1 * (theirs - reference).norm()
        assert (ours - reference).norm() <= (1e-6 if dtype is torch.float32 else 1e-2) * reference.norm()
