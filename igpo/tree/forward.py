"""The forward pass over a pack of token trees: hidden states, log-probabilities, entropies."""

from typing import Any

import torch

from igpo.tree import attention  # noqa: F401  registers the models' attention
from igpo.tree.segments import Pack, Segment, pack
from pipeline.devices import compute_dtype
from pipeline.errors import UserError

HEAD_ROWS = 512  # rows of one call of the output layer
TOLERANCE = 0.1  # of a log-probability: bf16 logits between 16 and 32 are rounded to 0.125


def autocast(device: str, dtype: torch.dtype | None = None) -> torch.autocast:
    """Passes over fp32 weights with products of matrices in `dtype`; sums and norms stay in fp32.

    Without `dtype`: in bf16, if the machine is fast at it.
    """
    products = dtype or compute_dtype()
    return torch.autocast(device, products, enabled=products is not torch.float32)


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
    segment = Segment(list(range(8)), targets=list(range(1, 8)))
    packed, training = pack([segment], model.device), model.training
    model.eval()
    from_tree = logprobs(model, packed)
    model.set_attn_implementation("sdpa")
    logits = model(packed.ids[None]).logits[0].float()
    model.set_attn_implementation("tree")
    model.train(training)
    plain = logits.log_softmax(-1)[packed.rows, packed.targets]
    difference = float((from_tree - plain).abs().mean())
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
    """Log-probabilities of targets (M,) under the output layer; the backward pass makes the logits again.

    Logits are products in fp32, their gradients' products are in `dtype`.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_states: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        logits = hidden_states.float() @ weight.float().T
        # log_softmax, in place: its copies of all logits would take longer than the product, and in fp32 it
        # is off by 1e-5 on a CPU
        highest = logits.amax(1)
        target_logits = logits.sub_(highest[:, None]).gather(1, targets[:, None])[:, 0]
        total = logits.exp_().sum(1)
        ctx.dtype = dtype
        ctx.save_for_backward(hidden_states, targets, weight, highest, total)
        return target_logits - total.log()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, targets, weight, highest, total = ctx.saved_tensors
        # d log p(target) / d logits = onehot(target) - softmax(logits)
        of_logits = (hidden_states.float() @ weight.float().T).sub_(highest[:, None]).exp_()
        of_logits.mul_(-(gradient / total)[:, None])
        of_logits[torch.arange(len(targets), device=targets.device), targets] += gradient
        of_logits = of_logits.to(ctx.dtype)  # those in fp32 would stay beside the layer's gradient
        of_hidden, of_weight = _of_layer(of_logits, hidden_states, weight, ctx.needs_input_grad[2])
        return of_hidden, None, of_weight, None


class _Entropy(torch.autograd.Function):
    """Entropies (M,) of the output layer's distributions; the backward pass makes the logits again."""

    @staticmethod
    def forward(
        ctx: Any, hidden_states: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        logs = (hidden_states.float() @ weight.float().T).log_softmax(1)
        entropy = -(logs.exp() * logs).sum(1)
        ctx.dtype = dtype
        ctx.save_for_backward(hidden_states, weight, entropy)
        return entropy

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, weight, entropy = ctx.saved_tensors
        logs = (hidden_states.float() @ weight.float().T).log_softmax(1)
        # d entropy / d logits = -p (log p + entropy)
        of_logits = logs.exp().mul_(logs + entropy[:, None]).mul_(-gradient[:, None])
        return *_of_layer(of_logits.to(ctx.dtype), hidden_states, weight, ctx.needs_input_grad[1]), None


def _of_layer(
    of_logits: torch.Tensor, hidden_states: torch.Tensor, weight: torch.Tensor, both: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of the output layer's input and, if `both` are asked for, of its weight."""
    of_hidden = (of_logits @ weight.to(of_logits.dtype)).to(hidden_states.dtype)
    return of_hidden, (of_logits.T @ hidden_states.to(of_logits.dtype)).to(weight.dtype) if both else None


def states(model: Any, packed: Pack) -> torch.Tensor:
    """Last hidden states ahead of a pack's target tokens, (M, width).

    `model` is a causal language model with attention "tree".
    """
    decoder = model.get_decoder()
    hidden_states = decoder(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        blocks=packed.blocks,
        use_cache=False,
    ).last_hidden_state[0]
    # not by brackets, whose gradient adds up rows that stand there twice in whatever order threads come
    return hidden_states.index_select(0, packed.rows)


def logprobs(model: Any, packed: Pack, entropy: bool = False) -> torch.Tensor:
    """Log-probabilities of a pack's target tokens, (M,) in fp32; logits exist for 512 rows at a time.

    With `entropy` (2, M): also the entropies of the distributions that these tokens stand in.
    """
    hidden_states = states(model, packed)
    weight, on = model.get_output_embeddings().weight, hidden_states.device.type
    dtype = torch.get_autocast_dtype(on) if torch.is_autocast_enabled(on) else torch.float32
    parts = []
    for low in range(0, len(hidden_states), HEAD_ROWS):
        rows = slice(low, low + HEAD_ROWS)
        with torch.autocast(on, enabled=False):
            part = _Head.apply(hidden_states[rows], packed.targets[rows], weight, dtype)
            parts.append(
                torch.stack([part, _Entropy.apply(hidden_states[rows], weight, dtype)]) if entropy else part
            )
    return (
        torch.cat(parts, -1)
        if parts
        else hidden_states.new_zeros((2, 0) if entropy else 0, dtype=torch.float32)
    )
