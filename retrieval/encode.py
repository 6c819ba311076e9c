"""corpus.parquet -> vectors of one shard of its passages, for `retrieval index --kind dense --vectors`.

Thus several GPUs or machines encode one corpus side by side. Passages go in parts of fixed rows; a finished
part is a file, so that a killed run goes on where it was. A shard holds whole parts: the vectors don't depend
on the number of shards.
"""

import itertools
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval import stage, tables
from retrieval.encoder import Encoder, open_encoder
from retrieval.encoder_files import encoder_folder, fingerprint
from retrieval.errors import UserError
from retrieval.factory import blank_index
from retrieval.index import chosen, digest, finish, place, workplace
from retrieval.passages import batches
from retrieval.stage import log

PART_ROWS = 2048
LOG_EVERY_S = 10


class Progress:
    """Logs how many passages are done, every `LOG_EVERY_S` seconds."""

    def __init__(self, done: int, total: int):
        self.first = self.done = done
        self.total, self.start = total, time.monotonic()
        self.logged = self.start

    def add(self, count: int) -> None:
        """Count `count` more passages."""
        self.done += count
        now = time.monotonic()
        if now - self.logged > LOG_EVERY_S:
            self.logged, rate = now, (self.done - self.first) / (now - self.start)
            left = (self.total - self.done) / rate
            log.info("dense: %d of %d passages, %.0f/s, %.0f s left", self.done, self.total, rate, left)


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
            with tables.replacing(path) as temporary, temporary.open("wb") as file:
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
    """The parts of a shard in order; UserError where one is missing or cut off."""
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
    found = []
    for folder in folders:
        manifest = tables.read_json(folder / "vectors.json")
        if not isinstance(manifest, dict) or manifest.get("key") != key:
            raise UserError(f"{folder}: vectors of another corpus, encoder or settings; encode again")
        found.append((manifest["first"], manifest["last"], folder))
    found.sort()
    ends = [0, *(last for _, last, _ in found)]
    if [first for first, _, _ in found] != ends[:-1] or ends[-1] != rows:
        spans = ", ".join(f"{first}–{last}" for first, last, _ in found)
        raise UserError(f"--vectors: rows {spans} are not all {rows} passages once; give every shard")
    return [path for first, last, folder in found for path in whole_parts(folder, range(first, last))]


def arguments(parser: ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="corpus.parquet")
    parser.add_argument("--shard", type=int, required=True, metavar="N", help="1 to index.shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="this shard's vectors")


def run(args: Namespace, params: SimpleNamespace) -> str:
    """Encode one shard."""
    if not 1 <= args.shard <= params.shards:
        raise UserError(f"--shard {args.shard}: expected 1 to {params.shards} (index.shards)")
    if not args.corpus.is_file():
        raise UserError(f"{args.corpus}: no such file")
    out, settings = place(args.out, "vectors.json", args.corpus), chosen("dense", params)
    encoder_hash = fingerprint(encoder_folder(params.encoder))
    key = vectors_key(tables.sha256(args.corpus), settings, encoder_hash)
    try:
        total = pq.read_metadata(args.corpus).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{args.corpus}: not a readable parquet table: {error}") from None
    encoder = open_encoder(settings)
    blank_index(params.faiss, encoder.dimension, list(part_sizes(range(total)).values()))  # can it be built?
    rows = shard_rows(total, args.shard, params.shards)
    with workplace(out, digest([key, rows.start, rows.stop])) as work:
        made = work / "made"
        encode_parts(corpus_texts(args.corpus, rows), rows, encoder, params.batch, made)
        tables.write_json({"key": key, "first": rows.start, "last": rows.stop}, made / "vectors.json")
        finish(work, out)
    return f"{len(rows)} passages, rows {rows.start} to {rows.stop}"


main = stage.command("index", arguments, run, __doc__)

if __name__ == "__main__":
    main()
