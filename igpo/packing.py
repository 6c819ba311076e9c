"""Token trees: many sequences with shared prefixes laid out for one forward pass, without padding.

A segment continues another one after some of its tokens: trajectories continue their group's prompt, and
every forced gold answer continues a trajectory after one of its turns. A token attends to its own segment
up to itself and to what its segment continues, so each token is computed once and every log-probability
equals that of a separate pass over the same path.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # its import takes a while
    from torch.nn.attention.flex_attention import BlockMask

log = logging.getLogger("igpo")
BLOCK = 128  # query rows of one attention call


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
    """Rows of one attention call: `rows` attend to the concatenated `keys` where `mask` (rows, keys).

    Without a mask the keys are the rows' whole path and its last are the rows themselves: attention is
    causal with all of it as queries, which is faster.
    """

    rows: slice
    keys: list[slice]
    mask: torch.Tensor | None

    @property
    def queries(self) -> list[slice]:
        """What is asked for: the rows are the last of it."""
        return self.keys if self.mask is None else [self.rows]


@dataclass
class Pack:
    """Segments laid end to end; shapes: ids, positions (N,); rows, targets (M,).

    `blocks` say who attends to whom: to SDPA on a CPU, as a BlockMask to FlexAttention on a GPU.
    """

    segments: list[Segment]
    ids: torch.Tensor
    positions: torch.Tensor
    blocks: "list[Block] | BlockMask"
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
    on_gpu = torch.device(device).type == "cuda"
    return Pack(
        segments,
        torch.tensor([token for segment in segments for token in segment.ids], device=device),
        torch.tensor(positions, device=device),
        flex_mask(segments, device) if on_gpu else sdpa_blocks(segments, start, device),
        torch.tensor(rows, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
    )


def _last_before(segment: Segment, start: dict[int, int]) -> int:
    """Index in the pack of the token before a segment's first."""
    for ancestor, after in segment.path():
        if after:
            return start[id(ancestor)] + after - 1
    raise ValueError("a segment continues nothing")


def flex_mask(segments: list[Segment], device: torch.device | str) -> "BlockMask":
    """Who attends to whom, for FlexAttention: (N, N)."""
    from torch.nn.attention.flex_attention import create_block_mask

    place = {id(segment): i for i, segment in enumerate(segments)}
    lengths = torch.tensor([len(segment.ids) for segment in segments])
    visible = torch.diag(lengths)  # [i, j]: tokens of segment j that segment i sees, those ahead of its own
    for i, segment in enumerate(segments):
        for ancestor, count in segment.path():
            visible[i, place[id(ancestor)]] = count
    visible = visible.to(device)
    number = torch.arange(len(segments)).repeat_interleave(lengths).to(device)  # segment of a token
    within = torch.cat([torch.arange(len(segment.ids)) for segment in segments]).to(device)

    def attends(
        batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return (key <= query) & (within[key] < visible[number[query], number[key]])

    return create_block_mask(attends, None, None, len(number), len(number), device=device)


def sdpa_blocks(segments: list[Segment], start: dict[int, int], device: torch.device | str) -> list[Block]:
    """Who attends to whom, for SDPA: one call for each block."""
    return [block for run in _runs(segments) for block in _blocks(run, start, device)]


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
    path = [slice(start[id(s)], start[id(s)] + visible) for s, visible in run[0].path()]
    if total and len(run) == 1 and sum(piece.stop - piece.start for piece in path) <= total:
        own = slice(first, first + total)
        yield Block(own, [*path[::-1], own], None)
        return
    number = torch.cat([torch.full((len(s.ids),), i) for i, s in enumerate(run)])  # segment of a row
    after = torch.tensor([segment.after for segment in run])
    keys = [slice(piece.start, piece.start + int(after.max())) for piece in path[:1]] + path[1:]
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
