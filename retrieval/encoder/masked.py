"""Attention that is always masked.

Transformers leaves out the mask of a pass without padding, and then another kernel attends: a query's vector
would depend on whether the query beside it is shorter. Importing this module registers the attention.
"""

from typing import Any

from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

ATTENTION = "always_masked"


def _mask(**settings: Any) -> Any:
    """The mask of scaled_dot_product_attention, also if it is true throughout."""
    return sdpa_mask(**settings | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _mask)
