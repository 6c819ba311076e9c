"""Token trees: many sequences with shared prefixes in one forward pass, without padding.

A segment continues another one after some of its tokens: trajectories continue their group's prompt, and
every forced gold answer continues a trajectory after one of its turns. A token attends to its own segment
up to itself and to what its segment continues, so each token is computed once and every log-probability
equals that of a separate pass over the same path.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from retrieval.stage import UserError

log = logging.getLogger("igpo")
BLOCK = 128  # query rows of one attention call
HEAD_ROWS = 512  # rows of one call of the output layer
TOLERANCE = 0.1  # of a log-probability: bf16 logits between 16 and 32 are rounded to 0.125


@dataclass(eq=False)
class Segment:
    """Tokens that continue `parent` after its first `after` tokens.

    `wanted` are the indices of tokens whose log-probability is asked for, in rising order.
    """

    ids: Sequence[int]
    parent: "Segment | None" = None
    after: int = 0
    wanted: Sequence[int] = field(default_factory=list)

    def path_ids(self) -> list[int]:
        """All tokens of a segment's path, the root's first."""
        parts = [self.ids, *(ancestor.ids[:visible] for ancestor, visible in self.path())]
        return [token for part in reversed(parts) for token in part]

    def path(self) -> Iterator[tuple["Segment", int]]:
        """What this segment continues, nearest first: (segment, its number of visible tokens)."""
        segment = self
        while segment.parent is not None:
            yield segment.parent, segment.after
            segment = segment.parent


@dataclass
class Block:
    """Rows of one attention call: `rows` attend to the concatenated `keys` where `mask` (rows, keys)."""

    rows: slice
    keys: list[slice]
    mask: torch.Tensor


@dataclass
class Pack:
    """Segments laid end to end; shapes: ids, positions (N,); rows, targets (M,)."""

    segments: list[Segment]
    ids: torch.Tensor
    positions: torch.Tensor
    blocks: list[Block]
    rows: torch.Tensor
    targets: torch.Tensor

    def split(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Cut values of shape (M,) to one tensor per segment, in the order of `segments`."""
        return list(values.split([len(segment.wanted) for segment in self.segments]))


def pack(segments: list[Segment], device: torch.device | str = "cpu") -> Pack:
    """Lay segments end to end; a parent stands before the segments that continue it."""
    start: dict[int, int] = {}
    before: dict[int, int] = {}  # tokens of a segment's path ahead of it
    total = 0
    for segment in segments:
        start[id(segment)] = total
        before[id(segment)] = before[id(segment.parent)] + segment.after if segment.parent else 0
        total += len(segment.ids)
    positions = [before[id(s)] + i for s in segments for i in range(len(s.ids))]
    rows, targets = [], []
    for segment in segments:
        for i in segment.wanted:
            if i:
                rows.append(start[id(segment)] + i - 1)
            elif segment.parent:
                rows.append(_last_before(segment, start))
            else:
                raise ValueError("a tree's first token has no log-probability")
            targets.append(segment.ids[i])
    return Pack(
        segments,
        torch.tensor([token for segment in segments for token in segment.ids], device=device),
        torch.tensor(positions, device=device),
        [block for run in _runs(segments) for block in _blocks(run, start, device)],
        torch.tensor(rows, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
    )


def _last_before(segment: Segment, start: dict[int, int]) -> int:
    """Index in the pack of the token before a segment's first."""
    for ancestor, after in segment.path():
        if after:
            return start[id(ancestor)] + after - 1
    raise ValueError("a segment continues nothing")


def _runs(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Neighbouring segments with one parent that together fit a block; longer ones stay alone."""
    run: list[Segment] = []
    for segment in segments:
        fits = sum(len(s.ids) for s in run) + len(segment.ids) <= BLOCK
        if run and (segment.parent is None or segment.parent is not run[0].parent or not fits):
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def _blocks(run: list[Segment], start: dict[int, int], device: torch.device | str) -> Iterator[Block]:
    first = start[id(run[0])]
    total = sum(len(segment.ids) for segment in run)
    number = torch.cat([torch.full((len(s.ids),), i) for i, s in enumerate(run)])  # segment of a row
    after = torch.tensor([segment.after for segment in run])
    keys = []
    for i, (ancestor, visible) in enumerate(run[0].path()):
        count = int(after.max()) if i == 0 else visible
        keys.append(slice(start[id(ancestor)], start[id(ancestor)] + count))
    older = sum(key.stop - key.start for key in keys[1:])
    nearest = keys[0].stop - keys[0].start if keys else 0
    for low in range(0, total, BLOCK):
        high = min(low + BLOCK, total)
        mine = number[low:high, None]
        seen = [torch.ones(high - low, older, dtype=torch.bool)]
        seen.insert(0, torch.arange(nearest)[None] < after[mine])
        index = torch.arange(high)
        seen.append((number[None, :high] == mine) & (index[None] <= index[low:high, None]))
        mask = torch.cat(seen, 1).to(device)
        yield Block(slice(first + low, first + high), [*keys, slice(first, first + high)], mask)


def _attend(
    block: Block, scaling: float, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """One block's rows over its keys: (1, H, rows, D), twice (1, H_kv, keys, D) -> (1, H, rows, D)."""
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=block.mask, scale=scaling, enable_gqa=True
    )


def _pieces(block: Block, values: torch.Tensor) -> torch.Tensor:
    return torch.cat([values[:, :, piece] for piece in block.keys], 2)


class _Attention(torch.autograd.Function):
    """Block after block. The backward pass attends again and adds to the keys' gradients in place.

    So neither a block's copies of keys and values nor a full-size gradient for each of its pieces exist.
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
        ctx.save_for_backward(query, key, value)
        ctx.scaling, ctx.blocks = scaling, blocks
        parts = [
            _attend(block, scaling, query[:, :, block.rows], _pieces(block, key), _pieces(block, value))
            for block in blocks
        ]
        return torch.cat(parts, 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        of_query, of_key, of_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        for block in ctx.blocks:
            inputs = (query[:, :, block.rows], _pieces(block, key), _pieces(block, value))
            with torch.enable_grad():
                leaves = [tensor.detach().requires_grad_() for tensor in inputs]
                output = _attend(block, ctx.scaling, *leaves)
            of_rows, of_keys, of_values = torch.autograd.grad(output, leaves, gradient[:, :, block.rows])
            of_query[:, :, block.rows] = of_rows
            lengths = [piece.stop - piece.start for piece in block.keys]
            for total, part in ((of_key, of_keys), (of_value, of_values)):
                for piece, values in zip(block.keys, part.split(lengths, 2), strict=True):
                    total[:, :, piece] += values
        return of_query, of_key, of_value, None, None


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    blocks: list[Block] | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over a pack: query (1, H, N, D), key and value (1, H_kv, N, D) -> (1, N, H, D)."""
    if blocks is None:
        raise ValueError("tree attention needs the blocks of a pack")
    if softcap is not None or s_aux is not None:
        raise UserError("token trees can't express attention with capped logits or sinks; use another model")
    dtype = query.dtype
    if query.requires_grad and query.device.type == "cpu":
        # The backward pass of SDPA in bf16 is slow on a CPU.
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        mixed: Any = _Attention.apply(query, key, value, scaling, blocks)
    return mixed.transpose(1, 2).to(dtype), None


AttentionInterface.register("tree", _attention)
AttentionMaskInterface.register("tree", lambda *args, **kwargs: None)


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
        of_hidden = (of_logits @ weight.float()).to(hidden.dtype)
        return of_hidden, None, (of_logits.T @ hidden.float()).to(weight.dtype)


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


def logprobs(model: Any, packed: Pack) -> torch.Tensor:
    """Log-probabilities of a pack's wanted tokens, (M,) in fp32; logits exist for 512 rows at a time."""
    wanted = states(model, packed)
    weight = model.get_output_embeddings().weight
    parts = []
    for low in range(0, len(wanted), HEAD_ROWS):
        rows = slice(low, low + HEAD_ROWS)
        with torch.autocast(wanted.device.type, enabled=False):
            parts.append(_Head.apply(wanted[rows], packed.targets[rows], weight))
    return torch.cat(parts) if parts else wanted.new_zeros(0, dtype=torch.float32)


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all sequences share, short of any whole sequence."""
    low, high = min(map(tuple, sequences)), max(map(tuple, sequences))
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(shared, min(map(len, sequences)) - 1)


def depth(segment: Segment) -> int:
    """Tokens of a segment's whole path."""
    return len(segment.ids) + sum(visible for _, visible in segment.path())


def flatten(trees: Sequence[Sequence[Segment]]) -> list[Segment]:
    """The segments of several trees, those that they share once."""
    return list(dict.fromkeys(segment for tree in trees for segment in tree))


def batches(trees: list[list[Segment]], tokens: int) -> Iterator[list[list[Segment]]]:
    """Consecutive trees of at most `tokens` tokens together; a larger tree stands alone."""
    batch: list[list[Segment]] = []
    used = 0
    for tree in trees:
        size = sum(len(segment.ids) for segment in tree)
        if batch and used + size > tokens:
            yield batch
            batch, used = [], 0
        batch.append(tree)
        used += size
    if batch:
        yield batch


def packs(
    trees: list[list[Segment]], tokens: int, device: torch.device | str, done: str
) -> Iterator[tuple[Pack, int]]:
    """Consecutive trees in packs of about `tokens` tokens, each with its number of trees.

    Logs the progress after each, as in "`done` 512 of 2048 tokens".
    """
    planned = [(flatten(batch), len(batch)) for batch in batches(trees, tokens)]
    total, used, start = sum(len(s.ids) for segments, _ in planned for s in segments), 0, time.monotonic()
    for segments, count in planned:
        packed = pack(segments, device)
        yield packed, count
        used += len(packed.ids)
        log.info("%s %d of %d tokens, %.0f tokens/s", done, used, total, used / (time.monotonic() - start))
