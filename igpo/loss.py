"""The policy loss: clipped ratio times advantage, and KL to the reference (paper Eq. 7). Pure tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Terms(NamedTuple):
    """Per policy token, each (M,): its loss, KL estimate, ratio, and whether clipping changed it."""

    loss: torch.Tensor
    kl: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def token_weights(lengths: Sequence[int], aggregation: str) -> list[float]:
    """Weight of each token of trajectories with these numbers of policy tokens; the loss is the weighted sum.

    seq-mean-token-mean: 1/(N |o_i|), the paper's; seq-mean-token-sum: 1/N, the released code's;
    token-mean: 1/sum |o_i|. N counts all trajectories.
    """
    count, total = len(lengths), sum(lengths)
    return {
        "seq-mean-token-mean": [1 / (count * max(length, 1)) for length in lengths],
        "seq-mean-token-sum": [1 / count] * count,
        "token-mean": [1 / max(total, 1)] * count,
    }[aggregation]


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL estimate exp(d) - d - 1 with d = reference - logprobs, clamped to [-10, 10]; shape kept."""
    difference = reference - logprobs
    return (difference.exp() - difference - 1).clamp(-10, 10)


def policy_loss(
    logprobs: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor,
    advantages: torch.Tensor,
    clip: tuple[float, float],
    kl_weight: float,
) -> Terms:
    """Token losses -min(ratio A, clip(ratio, 1 - low, 1 + high) A) + kl_weight k3; all shapes (M,)."""
    ratio = (logprobs - old).exp()
    low, high = clip
    plain, clipped = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    kl = k3(logprobs, reference)
    return Terms(-torch.minimum(plain, clipped) + kl_weight * kl, kl, ratio, clipped < plain)
