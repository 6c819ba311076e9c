"""The policy loss: clipped ratio times advantage, and KL to the reference (paper Eq. 7). Pure tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pipeline import sections


class Columns(NamedTuple):
    """What the loss needs of each policy token, each (M,)."""

    old: torch.Tensor  # log-probability under the policy before the update
    reference: torch.Tensor  # and under the reference policy
    advantages: torch.Tensor
    weights: torch.Tensor  # in the batch's loss
    clip_scales: torch.Tensor  # multiply the clip's half-widths


class Terms(NamedTuple):
    """Per policy token, each (M,): its loss, KL estimate, ratio, and whether clipping changed it."""

    loss: torch.Tensor
    kl: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def token_weights(lengths: Sequence[int], aggregation: str, norm_tokens: int) -> list[float]:
    """Weight of each token of trajectories with these numbers of policy tokens; the loss is the weighted sum.

    seq-mean-token-mean: 1/(N |o_i|), the paper's; seq-mean-token-sum: 1/N, the released code's;
    seq-mean-token-sum-norm: 1/(N norm_tokens), Dr. GRPO's; token-mean: 1/sum |o_i|, DAPO's; token-sum: 1.
    N counts all trajectories.
    """
    count, total = max(len(lengths), 1), max(sum(lengths), 1)
    return {
        "seq-mean-token-mean": [1 / (count * max(length, 1)) for length in lengths],
        "seq-mean-token-sum": [1 / count for _ in lengths],
        "seq-mean-token-sum-norm": [1 / (count * norm_tokens) for _ in lengths],
        "token-mean": [1 / total for _ in lengths],
        "token-sum": [1.0 for _ in lengths],
    }[aggregation]


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL estimate exp(d) - d - 1 with d = reference - logprobs, clamped to [-10, 10]; shape kept."""
    difference = reference - logprobs
    # beyond 20 it is clamped anyway, and infinity has no gradient
    return (difference.clamp(max=20).exp() - difference - 1).clamp(-10, 10)


def ratios(logprobs: torch.Tensor, old: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """exp(mean of logprobs - old over a token's span), (M,); `spans` are the spans' lengths, in order.

    The gradient reaches a token by its own log-probability, so that every token keeps its own advantage
    (GSPO-token, arXiv:2507.18071, Eq. 13); if a span has one advantage, that is GSPO's gradient.
    """
    means = torch.segment_reduce((logprobs - old).detach(), "mean", lengths=spans)
    return (means.repeat_interleave(spans) + (logprobs - logprobs.detach())).exp()


def policy_loss(
    logprobs: torch.Tensor, columns: Columns, spans: torch.Tensor, params: sections.Train
) -> Terms:
    """Token losses -min(ratio A, clip(ratio, 1 - c low, 1 + c high) A) + kl k3; all shapes (M,).

    With `dual_clip` d the loss of a negative advantage is at most -d A (arXiv:1912.09729).
    """
    ratio, advantages = ratios(logprobs, columns.old, spans), columns.advantages
    low, high = 1 - params.clip_low * columns.clip_scales, 1 + params.clip_high * columns.clip_scales
    plain = ratio * advantages
    gain = torch.minimum(plain, ratio.clamp(low, high) * advantages)
    if params.dual_clip is not None:
        gain = torch.where(advantages < 0, torch.maximum(gain, params.dual_clip * advantages), gain)
    kl = k3(logprobs, columns.reference)
    return Terms(-gain + params.kl * kl, kl, ratio, gain != plain)
