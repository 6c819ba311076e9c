"""The forward pass over a pack of token trees: attention, hidden states, log-probabilities.

Importing this module registers the attention "tree" with transformers.
"""

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from igpo.packing import Block, Pack, Segment, pack
from retrieval.encoder import compute_dtype
from retrieval.stage import UserError

if TYPE_CHECKING:  # its import takes a while
    from torch.nn.attention.flex_attention import BlockMask

# SDPA's kernel on a CPU
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
HEAD_ROWS = 512  # rows of one call of the output layer
TOLERANCE = 0.1  # of a log-probability: bf16 logits between 16 and 32 are rounded to 0.125


def _inputs(block: Block, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """A block's queries, keys and values, of those of the pack; as many heads of each.

    The kernel would take fewer heads of keys, but it shares out heads to threads: nine are shared more
    evenly than three.
    """
    pieces = (block.queries, block.keys, block.keys)
    return [
        torch.cat([tensor[:, :, piece] for piece in listed], 2).repeat_interleave(
            tensors[0].shape[1] // tensor.shape[1], 1
        )
        for tensor, listed in zip(tensors, pieces, strict=True)
    ]


def _unused(block: Block) -> int:
    """Number of queries ahead of a block's rows."""
    return sum(piece.stop - piece.start for piece in block.queries) - (block.rows.stop - block.rows.start)


def _how(block: Block, scaling: float, dtype: torch.dtype) -> dict[str, Any]:
    """The mask of a block as SDPA's kernel takes it: added to the scores."""
    mask = block.mask
    if mask is not None:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
    return {"dropout_p": 0.0, "is_causal": mask is None, "attn_mask": mask, "scale": scaling}


class _Attention(torch.autograd.Function):
    """Block after block, by the kernel behind SDPA on a CPU, whose normalisers the backward pass needs.

    The backward pass adds to the keys' gradients in place, so neither a block's copies of keys and values
    nor a full-size gradient for each of its pieces exist.
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
        mixed = torch.empty_like(query)
        normalisers = []
        for block in blocks:
            inputs = _inputs(block, query, key, value)
            part, normaliser = FORWARD(*inputs, **_how(block, scaling, query.dtype))
            mixed[:, :, block.rows] = part[:, :, _unused(block) :]
            normalisers.append(normaliser)
        ctx.save_for_backward(query, key, value, mixed, *normalisers)
        return mixed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, mixed, *normalisers = ctx.saved_tensors
        of_query, of_key, of_value = (
            torch.zeros_like(tensor, dtype=torch.float32) for tensor in (query, key, value)
        )
        for block, normaliser in zip(ctx.blocks, normalisers, strict=True):
            inputs, unused = _inputs(block, query, key, value), _unused(block)
            # a query without a gradient adds nothing to any other, whatever its output
            outputs = [functional.pad(t[:, :, block.rows], (0, 0, unused, 0)) for t in (gradient, mixed)]
            of_queries, of_keys, of_values = BACKWARD(
                outputs[0], *inputs, outputs[1], normaliser, **_how(block, ctx.scaling, query.dtype)
            )
            of_query[:, :, block.rows] = of_queries[:, :, unused:]
            lengths = [piece.stop - piece.start for piece in block.keys]
            for total, part in ((of_key, of_keys), (of_value, of_values)):
                shared = part.unflatten(1, (total.shape[1], -1)).sum(2, dtype=torch.float32)
                for piece, values in zip(block.keys, shared.split(lengths, 2), strict=True):
                    total[:, :, piece] += values
        return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype), None, None


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
    blocks: "list[Block] | BlockMask | None" = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a pack: query (1, H, N, D), key and value (1, H_kv, N, D) -> (1, N, H, D)."""
    if blocks is None:
        raise ValueError("tree attention needs the blocks of a pack")
    if softcap is not None or s_aux is not None:
        raise UserError("token trees can't express attention with capped logits or sinks; use another model")
    # under autocast rotation leaves queries and keys in fp32
    query, key = query.to(value.dtype), key.to(value.dtype)
    with torch.autocast(query.device.type, enabled=False):
        if isinstance(blocks, list):
            mixed: Any = _Attention.apply(query, key, value, scaling, blocks)
        else:
            mixed = _flex()(query, key, value, block_mask=blocks, scale=scaling, enable_gqa=True)
    return mixed.transpose(1, 2), None


AttentionInterface.register("tree", _attention)
AttentionMaskInterface.register("tree", lambda *args, **kwargs: None)


def autocast(device: str, dtype: torch.dtype | None = None) -> torch.autocast:
    """Passes over fp32 weights with products of matrices in `dtype`; sums and norms stay in fp32.

    Without `dtype`: in bf16, where the machine is fast at it.
    """
    chosen = dtype or compute_dtype()
    return torch.autocast(device, chosen, enabled=chosen is not torch.float32)


def check_model(model: Any, longest: int) -> None:
    """Raise UserError for models that a tree can't express or trajectories beyond the context.

    A sliding window at least as long as the longest trajectory is full attention.
    """
    window = getattr(model.config, "sliding_window", None)
    plain = "sliding_attention" if window else "full_attention"
    kinds = set(getattr(model.config, "layer_types", None) or [plain]) - {"full_attention"}
    if window and longest <= window:
        kinds -= {"sliding_attention"}
    if kinds:
        raise UserError(
            f"{model.name_or_path}: token trees can't express {', '.join(sorted(kinds))} over {longest} "
            "tokens; use a model with full attention, or shorten the trajectories (rollout.max_tokens)"
        )
    check_context(model, longest)
    check_passes(model)


@torch.inference_mode()
def check_passes(model: Any) -> None:
    """Raise UserError unless a tree gives what the model's own pass gives.

    An output layer may have a bias, scale its logits or cap them, which `logprobs` doesn't know.
    """
    segment = Segment(list(range(8)), wanted=list(range(1, 8)))
    packed, training = pack([segment], model.device), model.training
    model.eval()
    found = logprobs(model, packed)
    model.set_attn_implementation("sdpa")
    logits = model(packed.ids[None]).logits[0].float()
    model.set_attn_implementation("tree")
    model.train(training)
    plain = logits.log_softmax(-1)[packed.rows, packed.targets]
    difference = float((found - plain).abs().mean())
    if not difference <= TOLERANCE:
        raise UserError(
            f"{model.name_or_path}: log-probabilities from a token tree are {difference:.2f} off the model's "
            "own; its output layer is not a plain matrix: use another model"
        )


def check_context(model: Any, longest: int) -> None:
    """Raise UserError for trajectories beyond the model's context."""
    limit = model.config.max_position_embeddings
    if longest > limit:
        raise UserError(
            f"a trajectory of {longest} tokens, forced answer included, exceeds the context of {limit} "
            f"tokens of {model.name_or_path}: lower rollout.max_tokens and roll out again"
        )


class _Head(torch.autograd.Function):
    """Log-probabilities of targets (M,) under the output layer; the backward pass makes the logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = hidden.float() @ weight.float().T
        normaliser = logits.logsumexp(1)
        ctx.save_for_backward(hidden, targets, weight, normaliser)
        return logits.gather(1, targets[:, None])[:, 0] - normaliser

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, targets, weight, normaliser = ctx.saved_tensors
        # d log p(target) / d logits = onehot(target) - softmax(logits)
        of_logits = (hidden.float() @ weight.float().T).sub_(normaliser[:, None]).exp_()
        of_logits.mul_(-gradient[:, None])
        of_logits[torch.arange(len(targets), device=targets.device), targets] += gradient
        of_hidden, of_weight = _of_layer(of_logits, hidden, weight, ctx.needs_input_grad[2])
        return of_hidden, None, of_weight


class _Entropy(torch.autograd.Function):
    """Entropies (M,) of the output layer's distributions; the backward pass makes the logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logs = (hidden.float() @ weight.float().T).log_softmax(1)
        entropy = -(logs.exp() * logs).sum(1)
        ctx.save_for_backward(hidden, weight, entropy)
        return entropy

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, entropy = ctx.saved_tensors
        logs = (hidden.float() @ weight.float().T).log_softmax(1)
        # d entropy / d logits = -p (log p + entropy)
        of_logits = logs.exp().mul_(logs + entropy[:, None]).mul_(-gradient[:, None])
        return _of_layer(of_logits, hidden, weight, ctx.needs_input_grad[1])


def _of_layer(
    of_logits: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor, both: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of the output layer's input and, where `both` are asked for, of its weight."""
    of_hidden = (of_logits @ weight.float()).to(hidden.dtype)
    return of_hidden, (of_logits.T @ hidden.float()).to(weight.dtype) if both else None


def states(model: Any, packed: Pack) -> torch.Tensor:
    """Last hidden states ahead of a pack's wanted tokens, (M, width).

    `model` is a causal language model with attention "tree".
    """
    decoder = model.get_decoder()
    hidden = decoder(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        blocks=packed.blocks,
        use_cache=False,
    ).last_hidden_state[0]
    return hidden[packed.rows]


def logprobs(model: Any, packed: Pack, entropy: bool = False) -> torch.Tensor:
    """Log-probabilities of a pack's wanted tokens, (M,) in fp32; logits exist for 512 rows at a time.

    With `entropy` (2, M): also the entropies of the distributions that these tokens stand in.
    """
    wanted = states(model, packed)
    weight = model.get_output_embeddings().weight
    parts = []
    for low in range(0, len(wanted), HEAD_ROWS):
        rows = slice(low, low + HEAD_ROWS)
        with torch.autocast(wanted.device.type, enabled=False):
            part = _Head.apply(wanted[rows], packed.targets[rows], weight)
            parts.append(torch.stack([part, _Entropy.apply(wanted[rows], weight)]) if entropy else part)
    return torch.cat(parts, -1) if parts else wanted.new_zeros((2, 0) if entropy else 0, dtype=torch.float32)
