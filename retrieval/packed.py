"""Texts of any lengths end to end through one pass of a BERT: no token of padding but in attention.

Importing this module registers the attention "packed" with transformers; without `groups` it is SDPA.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

MODELS = ("bert", "roberta", "xlm-roberta")  # that can say positions and attend as they are told
ATTENTION = "packed"


class Group(NamedTuple):
    """Texts that are equally wide in attention: W texts of up to L tokens.

    `texts`: their numbers. `rows` (W, L): where a token stands in the pass, `real` (W, L): no padding;
    `kept` and `places`: rows of the tokens that are real, and where these stand in `rows`, laid flat.
    """

    texts: list[int]
    rows: torch.Tensor
    real: torch.Tensor
    kept: torch.Tensor
    places: torch.Tensor


def grouped(lengths: Sequence[int], widths: Sequence[int]) -> list[Group]:
    """The groups of texts that stand in a pass one after another, by width."""
    ends = torch.tensor(lengths).cumsum(0)
    groups = []
    for width in sorted(set(widths)):
        texts = [number for number, own in enumerate(widths) if own == width]
        length, within = torch.tensor([[lengths[number]] for number in texts]), torch.arange(width)
        real = within < length
        rows = (ends[texts, None] - length + within).where(real, 0)
        groups.append(Group(texts, rows, real, rows[real], real.flatten().nonzero()[:, 0]))
    return groups


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    groups: Sequence[Group] | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Every text attends to itself: query, key, value (1, H, N, D) -> (1, N, H, D)."""
    if groups is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    tokens = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    mixed = torch.zeros_like(tokens[0])
    for group in groups:
        q, k, v = (tensor[group.rows].transpose(1, 2) for tensor in tokens)
        mask = group.real[:, None, None]
        found = scaled_dot_product_attention(q, k, v, mask, scale=settings["scaling"])
        mixed[group.kept] = found.transpose(1, 2).flatten(0, 1)[group.places]
    return mixed[None], None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def states(model: Any, tokens: Sequence[Sequence[int]], groups: Sequence[Group], total: int) -> torch.Tensor:
    """Last hidden states of texts, (total, width): their tokens' rows, then rows that mean nothing.

    `model` is one of `MODELS` with this attention.
    """
    first = getattr(model.embeddings, "padding_idx", -1) + 1  # RoBERTa's positions begin behind padding's
    ids, positions = torch.zeros(2, total, dtype=torch.long)
    used = sum(map(len, tokens))
    ids[:used] = torch.tensor([token for row in tokens for token in row])
    positions[:used] = torch.cat([torch.arange(first, first + len(row)) for row in tokens])
    output = model(input_ids=ids[None], position_ids=positions[None], groups=groups)
    return output.last_hidden_state[0]
