"""The loss against hand-computed values."""

import math
from types import SimpleNamespace

import pytest
import torch

from igpo.training.loss import Columns, k3, policy_loss, ratios, token_weights

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None, "kl": 0.0}


def loss(logprobs, old, advantages, *, reference=None, scales=None, spans=None, **settings):
    """The terms of tokens whose reference is, unless given, the policy itself."""
    tensors = [torch.as_tensor(values) for values in (logprobs, old, advantages)]
    ones = torch.ones(len(tensors[0]))
    columns = Columns(
        tensors[1],
        tensors[0].detach() if reference is None else torch.as_tensor(reference),
        tensors[2],
        ones,
        ones if scales is None else torch.as_tensor(scales),
    )
    lengths = torch.as_tensor(spans or [1] * len(ones))
    return policy_loss(tensors[0], columns, lengths, SimpleNamespace(**DEFAULTS | settings))


def test_clipping_by_hand():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5])
    terms = loss(ratio.log(), [0.0] * 4, [1.0, 1.0, -1.0, -1.0], clip_high=0.3)
    assert terms.loss.tolist() == pytest.approx([-1.3, -0.5, 1.5, 0.8])
    assert terms.clipped.tolist() == [True, False, False, True]


def test_a_scale_widens_or_narrows_the_clip_of_its_tokens():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    terms = loss(ratio.log(), [0.0] * 4, [1.0, 1.0, -1.0, -1.0], scales=[0.5, 2.0, 0.5, 2.0])
    assert terms.loss.tolist() == pytest.approx([-1.1, -1.4, 0.9, 0.6])


def test_dual_clip_bounds_the_loss_of_negative_advantages_only():
    ratio = torch.tensor([5.0, 5.0, 2.0])
    terms = loss(ratio.log(), [0.0] * 3, [-0.5, 0.5, -0.5], dual_clip=3.0)
    assert terms.loss.tolist() == pytest.approx([1.5, -0.6, 1.0])
    assert terms.clipped.tolist() == [True, True, False]


def test_k3_by_hand_and_clamped():
    estimates = k3(torch.tensor([0.0, 0.0, -20.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert estimates.tolist() == pytest.approx([0.0, math.e - 2, 10.0])
    far = torch.tensor([-100.0], requires_grad=True)
    k3(far, torch.zeros(1)).sum().backward()
    assert far.grad.tolist() == [0.0]  # clamped


def test_kl_enters_with_its_weight():
    terms = loss([0.0], [0.0], [2.0], reference=[1.0], kl=0.1)
    assert terms.loss.item() == pytest.approx(-2 + 0.1 * (math.e - 2), rel=1e-6)


def test_on_policy_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss(logprobs, logprobs.detach(), [0.7, -0.3], kl=1.0).loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.7, 0.3])


def test_a_ratio_by_token_is_that_of_each_token_to_the_bit():
    logprobs, old = -torch.rand(50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [9.0]])
    expected = (logprobs - old).exp()
    assert torch.equal(ratios(logprobs, old, torch.ones(50, dtype=torch.long)), expected)


def test_a_ratio_by_span_is_the_geometric_mean_of_its_tokens():
    ratio = torch.tensor([2.0, 8.0, 3.0, 1.0, 1.0, 27.0])
    values = ratios(ratio.log(), torch.zeros(6), torch.tensor([2, 0, 1, 3]))
    assert values.tolist() == pytest.approx([4.0, 4.0, 3.0, 3.0, 3.0, 3.0], rel=1e-6)


def test_the_gradient_of_a_sequence_with_one_advantage_is_gspo_s():
    """d/d logp of -s A with s = exp(mean log-ratio): every token gets -s A / length."""
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    old = torch.tensor([-1.1, -1.9, -0.8])
    terms = loss(logprobs, old, [2.0] * 3, spans=[3], clip_low=10.0, clip_high=10.0)
    terms.loss.mean().backward()
    s = math.exp((0.1 - 0.1 + 0.3) / 3)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-s * 2 / 3] * 3, rel=1e-6)


def test_a_sequence_is_clipped_as_a_whole_and_then_has_no_gradient():
    logprobs = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    terms = loss(logprobs, [0.0] * 3, [1.0] * 3, spans=[2, 1], clip_low=3e-4, clip_high=4e-4)
    terms.loss.sum().backward()
    assert terms.clipped.tolist() == [True, True, False]
    assert terms.loss.tolist() == pytest.approx([-1.0004, -1.0004, -1.0])
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("seq-mean-token-mean", [1 / 4, 1 / 12]),
        ("seq-mean-token-sum", [1 / 2, 1 / 2]),
        ("seq-mean-token-sum-norm", [1 / 20, 1 / 20]),
        ("token-mean", [1 / 8, 1 / 8]),
        ("token-sum", [1, 1]),
    ],
)
def test_token_weights_by_hand(aggregation, expected):
    assert token_weights([2, 6], aggregation, norm_tokens=10) == pytest.approx(expected)


def test_a_trajectory_without_tokens_weighs_nothing_and_breaks_nothing():
    assert token_weights([0, 4], "seq-mean-token-mean", norm_tokens=1) == [1 / 2, 1 / 8]
