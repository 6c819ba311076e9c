"""Vectors of a corpus in parts of fixed rows, each a file; shards hold whole parts."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.encoder.encoder import Encoder
from retrieval.indexes.manifest import digest
from retrieval.indexes.passages import batches

PART_ROWS = 2048
LOG_EVERY_S = 10


class Progress:
    """Logs how many passages are done, every `LOG_EVERY_S` seconds."""

    def __init__(self, count: int, total: int):
        self.first = self.done = count
        self.total, self.start = total, time.monotonic()
        self.logged = self.start

    def add(self, count: int) -> None:
        """Count `count` more passages."""
        self.done += count
        now = time.monotonic()
        if now - self.logged > LOG_EVERY_S:
            self.logged, rate = now, (self.done - self.first) / (now - self.start)
            seconds = (self.total - self.done) / rate
            log.info("dense: %d of %d passages, %.0f/s, %.0f s left", self.done, self.total, rate, seconds)


def part_sizes(rows: range) -> dict[int, int]:
    """First row -> number of rows of each part."""
    return {start: min(PART_ROWS, rows.stop - start) for start in rows[::PART_ROWS]}


def encode_parts(texts: Iterator[str], rows: range, encoder: Encoder, batch: int, folder: Path) -> list[Path]:
    """Write the vectors of `rows`, whose texts come in order, part by part; parts that are there stay."""
    folder.mkdir(exist_ok=True)
    sizes = part_sizes(rows)
    parts = {start: folder / f"{start:012d}.npy" for start in sizes}
    progress = Progress(sum(sizes[start] for start in parts if parts[start].exists()), len(rows))
    for start, path in parts.items():
        part = list(itertools.islice(texts, sizes[start]))
        if not path.exists():
            vectors = encoder.passages(part, batch, progress.add)
            with storage.replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors)
    return list(parts.values())


def shard_rows(total: int, shard: int, shards: int) -> range:
    """The rows of shard 1…`shards`: whole parts, shared out evenly."""
    parts = -(-total // PART_ROWS)
    first, last = (parts * number // shards * PART_ROWS for number in (shard - 1, shard))
    return range(first, min(last, total))


def corpus_texts(corpus: Path, rows: range) -> Iterator[str]:
    """Title and text of these rows of a corpus table, streamed."""
    at = 0
    for batch in batches(corpus):
        low, high = (min(max(row - at, 0), len(batch)) for row in (rows.start, rows.stop))
        _, titles, texts = (column[low:high].to_pylist() for column in batch.columns)
        yield from (f"{title}\n{text}" for title, text in zip(titles, texts, strict=True))
        at += len(batch)


def vectors_key(corpus_sha256: str, settings: dict[str, Any], encoder: str) -> str:
    """A hash over what decides a corpus's vectors; `encoder` is the encoder's hash."""
    decisive = {name: value for name, value in settings.items() if name not in ("encoder", "faiss")}
    return digest([corpus_sha256, decisive, encoder])


def whole_parts(folder: Path, rows: range) -> list[Path]:
    """The parts of a shard in order; UserError if one is missing or cut off."""
    paths = [folder / f"{start:012d}.npy" for start in part_sizes(rows)]
    for path, size in zip(paths, part_sizes(rows).values(), strict=True):
        try:
            whole = len(np.load(path, mmap_mode="r")) == size
        except (OSError, ValueError):
            whole = False
        if not whole:
            raise UserError(f"{path}: missing or not the vectors of {size} passages; encode the shard again")
    return paths


def read_shards(folders: Sequence[Path], key: str, rows: int) -> list[Path]:
    """The parts of all shards in order.

    Raises UserError unless they are the vectors with this key, of all `rows` passages.
    """
    shards = []
    for folder in folders:
        manifest = storage.read_json(folder / "vectors.json")
        if not isinstance(manifest, dict) or manifest.get("key") != key:
            raise UserError(f"{folder}: vectors of another corpus, encoder or settings; encode again")
        shards.append((manifest["first"], manifest["last"], folder))
    shards.sort()
    ends = [0, *(last for _, last, _ in shards)]
    if [first for first, _, _ in shards] != ends[:-1] or ends[-1] != rows:
        spans = ", ".join(f"{first}–{last}" for first, last, _ in shards)
        raise UserError(f"--vectors: rows {spans} are not all {rows} passages once; give every shard")
    return [path for first, last, folder in shards for path in whole_parts(folder, range(first, last))]
