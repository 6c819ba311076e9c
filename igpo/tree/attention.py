"""Attention "tree" over a pack of token trees; importing this module registers it with transformers."""

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from igpo.tree.segments import Block
from pipeline.errors import UserError

if TYPE_CHECKING:  # its import takes a while
    from torch.nn.attention.flex_attention import BlockMask


def _scores(query: torch.Tensor, key: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Of queries (H, G R, D) by keys (H, S, D), -inf for `hidden` (R, n) of the last n: (H, G R, S)."""
    scores = query @ key.transpose(1, 2)
    last = scores.unflatten(1, (-1, len(hidden)))[..., -hidden.shape[1] :]
    last.masked_fill_(hidden, -torch.inf)
    return scores


def _gathered(block: Block, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """What of tensors (H, N, D) stands under a block's keys."""
    return [torch.cat([tensor[:, piece] for piece in block.keys], 1) for tensor in tensors]


def _first(count: int, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """The first `count` keys of (H, S, D), contiguous: oneDNN's products would copy slices more slowly."""
    return [tensor[:, :count].contiguous() for tensor in tensors]


class _Attention(torch.autograd.Function):
    """Products of matrices, of one head's keys with all the queries' heads that share it.

    On a CPU in bf16 they are faster than the kernel behind SDPA, which would keep scores in fp32. Nothing of
    the size of rows x keys is kept: the backward pass makes the probabilities p again, then from scores minus
    each row's highest: bf16 rounds these least if p is high. With dx the gradient of x, o the output:

        dv = p^T do        ds = p (dp - rowsum(p dp)), dp = do v^T        dq = ds k        dk = ds^T q
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        blocks: list[Block],
    ) -> torch.Tensor:
        ctx.scaling, ctx.blocks = scaling, blocks
        backward_follows = any(ctx.needs_input_grad)
        queries = (query[0] * scaling).unflatten(0, (key.shape[1], -1))  # (H, G, N, D): G share keys
        output, highest = torch.empty_like(queries), queries.new_empty(queries.shape[:3])
        for block in blocks:
            keys, values = _gathered(block, key[0], value[0])
            for rows, visible, hidden in block.parts:
                k, v = _first(visible, keys, values)
                scores = _scores(queries[:, :, rows].flatten(1, 2), k, hidden)
                if backward_follows:
                    highest[:, :, rows] = scores.amax(-1).view_as(highest[:, :, rows])
                output[:, :, rows] = (scores.softmax(-1) @ v).view_as(output[:, :, rows])
        if backward_follows:
            ctx.save_for_backward(torch.cat([queries, -highest[..., None]], -1), key, value)
        return output.flatten(0, 1)[None]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries_and_max, key, value = ctx.saved_tensors
        of_output = gradient[0].unflatten(0, queries_and_max.shape[:2])
        of_queries = torch.empty_like(of_output)
        of_key, of_value = (torch.zeros_like(tensor[0], dtype=torch.float32) for tensor in (key, value))
        for block in ctx.blocks:
            keys, values = _gathered(block, key[0], value[0])
            with_ones = functional.pad(keys, (0, 1), value=1.0)
            of_keys, of_values = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (keys, values))
            for rows, visible, hidden in block.parts:
                q, of_rows = (tensor[:, :, rows].flatten(1, 2) for tensor in (queries_and_max, of_output))
                k, k_one, v = _first(visible, keys, with_ones, values)
                p = _scores(q, k_one, hidden).softmax(-1)
                of_p = of_rows @ v.transpose(1, 2)
                of_scores = torch._softmax_backward_data(of_p, p, -1, p.dtype)
                of_queries[:, :, rows] = (of_scores @ k).view_as(of_queries[:, :, rows])
                of_keys[:, :visible] += of_scores.transpose(1, 2) @ q[..., :-1]
                of_values[:, :visible] += p.transpose(1, 2) @ of_rows
            lengths = [piece.stop - piece.start for piece in block.keys]
            for total, part in ((of_key, of_keys), (of_value, of_values)):
                for piece, of_piece in zip(block.keys, part.split(lengths, 1), strict=True):
                    total[:, piece] += of_piece
        of_query = (of_queries * ctx.scaling).flatten(0, 1)
        return of_query[None], of_key.to(key.dtype)[None], of_value.to(value.dtype)[None], None, None


def _over_paths(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, blocks: list[Block]
) -> torch.Tensor:
    """SDPA over a whole path at a time: it rounds as in a model's own pass over this path alone.

    Of paths that share a token the last one has its row. Segments in a block together attend under a mask.
    """
    key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    output, todo = torch.empty_like(query), torch.ones(query.shape[2], dtype=torch.bool)
    for block in reversed(blocks):
        path = torch.cat([torch.arange(piece.start, piece.stop) for piece in block.keys])
        if block.together:
            [(rows, visible, hidden)] = block.parts
            query_rows = torch.arange(rows.start, rows.stop)
            mask = functional.pad(~hidden, (visible - hidden.shape[1], 0), value=True)
        else:
            query_rows, mask = path, None
        new = todo[query_rows]
        if new.any():
            result = functional.scaled_dot_product_attention(
                *(query[:, :, query_rows], key[:, :, path], value[:, :, path]),
                attn_mask=mask,
                is_causal=mask is None,
                scale=scaling,
            )
            output.index_copy_(2, query_rows[new], result[:, :, new])
            todo[query_rows] = False
    return output


@functools.cache
def _flex() -> Any:
    """FlexAttention: compiled on a GPU, else it would make all scores at once, as its reference does."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if torch.cuda.is_available() else flex_attention


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a pack: query (1, H, N, D), key and value (1, H_kv, N, D) -> (1, N, H, D)."""
    blocks: list[Block] | BlockMask | None = settings.get("blocks")
    if blocks is None:
        raise ValueError("tree attention needs the blocks of a pack")
    if settings.get("softcap") is not None or settings.get("s_aux") is not None:
        raise UserError("token trees can't express attention with capped logits or sinks; use another model")
    # under autocast rotation leaves queries and keys in fp32
    query, key = query.to(value.dtype), key.to(value.dtype)
    with torch.autocast(query.device.type, enabled=False):
        if isinstance(blocks, list):
            over = _Attention.apply if value.dtype is torch.bfloat16 else _over_paths
            output: Any = over(query, key, value, scaling, blocks)
        else:
            output = _flex()(query, key, value, block_mask=blocks, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2), None


AttentionInterface.register("tree", _attention)
AttentionMaskInterface.register("tree", lambda *args, **kwargs: None)
