"""Token trees: many sequences with shared prefixes laid out for one forward pass, without padding.

A segment continues another one after some of its tokens: trajectories continue their group's prompt, and
every forced gold answer continues a trajectory after one of its turns. A token attends to its own segment
up to itself and to what its segment continues, so each token is computed once and every log-probability
equals that of a separate pass over the same path.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from pipeline import cost
from pipeline.log import log

if TYPE_CHECKING:  # its import takes a while
    from torch.nn.attention.flex_attention import BlockMask

ROWS = 128  # that attend together


@dataclass(eq=False)
class Segment:
    """Tokens that continue `parent` after its first `after` tokens.

    `targets` are the indices of tokens whose log-probability is asked for, in rising order.
    """

    ids: Sequence[int]
    parent: "Segment | None" = None
    after: int = 0
    targets: Sequence[int] = field(default_factory=list)

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


class Part(NamedTuple):
    """Rows of a block: they attend to its first `visible` keys, but for `hidden` (rows, n) of the last n."""

    rows: slice
    visible: int
    hidden: torch.Tensor


@dataclass
class Block:
    """Rows that continue one path: `keys`, laid end to end, are this path and then the rows themselves.

    The rows are those of one segment, or of several `together`, in one part.
    """

    keys: list[slice]
    parts: list[Part]
    together: bool


@dataclass
class Pack:
    """Segments laid end to end; shapes: ids, positions (N,); rows, targets (M,).

    `blocks` say who attends to whom: a list on a CPU, on a GPU FlexAttention's BlockMask.
    """

    segments: list[Segment]
    ids: torch.Tensor
    positions: torch.Tensor
    blocks: "list[Block] | BlockMask"
    rows: torch.Tensor
    targets: torch.Tensor

    def split(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Cut values of shape (M,) to one tensor per segment, in the order of `segments`."""
        return list(values.split([len(segment.targets) for segment in self.segments]))


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
        for i in segment.targets:
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
        flex_mask(segments, device) if on_gpu else [_block(run, start) for run in _runs(segments)],
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


def _runs(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Neighbouring segments with tokens and one parent that together fit a part; longer ones stay alone."""
    run: list[Segment] = []
    for segment in segments:
        if not segment.ids:
            continue
        fits = sum(len(s.ids) for s in run) + len(segment.ids) <= ROWS
        if run and (segment.parent is None or segment.parent is not run[0].parent or not fits):
            yield run
            run = []
        run.append(segment)
    if run:
        yield run


def _block(run: list[Segment], start: dict[int, int]) -> Block:
    first = start[id(run[0])]
    lengths = [len(segment.ids) for segment in run]
    number = torch.arange(len(run)).repeat_interleave(torch.tensor(lengths))  # segment of a row
    after = torch.tensor([segment.after for segment in run])
    least, most = int(after.min()), int(after.max())
    path = [slice(start[id(s)], start[id(s)] + visible) for s, visible in run[0].path()][::-1]
    if path:
        path[-1] = slice(path[-1].start, path[-1].start + most)
    before = sum(piece.stop - piece.start for piece in path)
    parts = []
    for low in range(0, sum(lengths), ROWS):
        high = min(low + ROWS, sum(lengths))
        mine, row = number[low:high, None], torch.arange(low, high)
        later = torch.arange(least, most) >= after[mine]
        other = (mine != mine.T) | (row > row[:, None])
        hidden = torch.cat([later, other], 1)
        parts.append(Part(slice(first + low, first + high), before + high, hidden))
    return Block([*path, slice(first, first + sum(lengths))], parts, len(run) > 1)


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all sequences share, short of any whole sequence."""
    low, high = min(map(tuple, sequences)), max(map(tuple, sequences))
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(length, min(map(len, sequences)) - 1)


def depth(segment: Segment) -> int:
    """Tokens of a segment's whole path."""
    return len(segment.ids) + sum(visible for _, visible in segment.path())


def flatten(trees: Sequence[Sequence[Segment]]) -> list[Segment]:
    """The segments of several trees, those that they share once."""
    return list(dict.fromkeys(segment for tree in trees for segment in tree))


def batches(trees: list[list[Segment]], tokens: int) -> Iterator[list[list[Segment]]]:
    """Consecutive trees of at most `tokens` tokens together; a larger tree stands alone."""
    batch: list[list[Segment]] = []
    total = 0
    for tree in trees:
        size = sum(len(segment.ids) for segment in tree)
        if batch and total + size > tokens:
            yield batch
            batch, total = [], 0
        batch.append(tree)
        total += size
    if batch:
        yield batch


def with_neighbours(trees: list[list[Segment]], selection: slice, tokens: int) -> list[list[Segment]]:
    """The chosen trees and all that share a pass of `tokens` tokens with one: packed as among all trees."""
    result: list[list[Segment]] = []
    start = 0
    for batch in batches(trees, tokens):
        end = start + len(batch)
        if start < selection.stop and end > selection.start:
            result += batch
        start = end
    return result


def packs(
    trees: list[list[Segment]], tokens: int, device: torch.device | str, label: str
) -> Iterator[tuple[Pack, int]]:
    """Consecutive trees in packs of about `tokens` tokens, each with its number of trees.

    Logs the progress after each, as in "`label` 512 of 2048 tokens".
    """
    plan = [(flatten(batch), len(batch)) for batch in batches(trees, tokens)]
    total, token_count, start = sum(len(s.ids) for segments, _ in plan for s in segments), 0, time.monotonic()
    for segments, count in plan:
        packed = pack(segments, device)
        yield packed, count
        token_count, seconds = token_count + len(packed.ids), time.monotonic() - start
        log.info("%s %d of %d tokens, %.0f tokens/s", label, token_count, total, token_count / seconds)
    cost.add("passes", time.monotonic() - start)
