"""The loss against hand-computed values."""

import math

import pytest
import torch

from igpo.loss import k3, policy_loss, token_weights


def test_clipping_by_hand():
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    zeros = torch.zeros(4)
    terms = policy_loss(ratio.log(), zeros, ratio.log(), advantage, (0.2, 0.3), 0.5)
    assert terms.loss.tolist() == pytest.approx([-1.3, -0.5, 1.5, 0.8])
    assert terms.clipped.tolist() == [True, False, False, True]


def test_k3_by_hand_and_clamped():
    found = k3(torch.tensor([0.0, 0.0, -20.0]), torch.tensor([0.0, 1.0, 0.0]))
    assert found.tolist() == pytest.approx([0.0, math.e - 2, 10.0])


def test_kl_enters_with_its_weight():
    terms = policy_loss(*torch.tensor([[0.0], [0.0], [1.0], [2.0]]), (0.2, 0.2), 0.1)
    assert terms.loss.item() == pytest.approx(-2 + 0.1 * (math.e - 2), rel=1e-6)


def test_on_policy_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    advantage = torch.tensor([0.7, -0.3])
    policy_loss(
        logprobs, logprobs.detach(), logprobs.detach(), advantage, (0.2, 0.2), 1.0
    ).loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.7, 0.3])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("seq-mean-token-mean", [1 / 4, 1 / 12]),
        ("seq-mean-token-sum", [1 / 2, 1 / 2]),
        ("token-mean", [1 / 8, 1 / 8]),
    ],
)
def test_token_weights_by_hand(aggregation, expected):
    assert token_weights([2, 6], aggregation) == pytest.approx(expected)


def test_a_trajectory_without_tokens_weighs_nothing_and_breaks_nothing():
    assert token_weights([0, 4], "seq-mean-token-mean") == [1 / 2, 1 / 8]
