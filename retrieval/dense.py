"""Dense retrieval: an encoder's vectors of title + text in a FAISS index, memory-mapped.

Passages are encoded in shards of fixed rows; a finished shard is a file, so that a killed build goes on where
it was and gives the same index.
"""

import shutil
import time
from pathlib import Path

import faiss
import numpy as np

from retrieval.bm25 import Ranking
from retrieval.encoder import Encoder, compute_dtype, encoder_folder, fingerprint
from retrieval.passages import Passages
from retrieval.stage import UserError, log

SHARD_ROWS = 2048
TRAINING_ROWS = 200_000  # rows that IVF and PQ learn from, evenly spaced
LOG_EVERY_S = 10
EXTRA = 16  # candidates beyond k, to see the end of a run of equal scores

# Above this number of queries FAISS calls BLAS, whose rounding depends on how many are asked together.
faiss.cvar.distance_compute_blas_threshold = 1 << 30


def blank_index(factory: str, dimension: int) -> faiss.Index:
    """An empty inner-product index; UserError for a factory string that FAISS does not know."""
    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(f"params: index.faiss: {factory!r} does not fit: {error}") from None


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


def encode_shards(passages: Passages, encoder: Encoder, batch: int, folder: Path) -> list[Path]:
    """Write the vectors of every shard that is not yet there, in order."""
    folder.mkdir(exist_ok=True)
    starts = range(0, len(passages), SHARD_ROWS)
    shards = {start: folder / f"{start:012d}.npy" for start in starts}
    left = [start for start in starts if not shards[start].exists()]
    rows_left = sum(min(SHARD_ROWS, len(passages) - start) for start in left)
    progress = Progress(len(passages) - rows_left, len(passages))
    for start in left:
        rows = range(start, min(start + SHARD_ROWS, len(passages)))
        texts = ["\n".join(passages.row(row)[1:]) for row in rows]
        temporary = shards[start].with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, encoder.passages(texts, batch, progress.add))
        temporary.replace(shards[start])
    return list(shards.values())


def train(index: faiss.Index, shards: list[Path], rows: int) -> None:
    """Let an IVF or PQ index learn from evenly spaced rows; UserError where the corpus is too small."""
    step = -(-rows // TRAINING_ROWS)
    sample = np.concatenate([np.load(shard, mmap_mode="r")[::step] for shard in shards])
    try:
        index.train(sample)
    except RuntimeError as error:
        raise UserError(f"params: index.faiss does not fit {rows} passages: {error}") from None


def build(passages: Passages, folder: Path, settings: dict) -> None:
    """Encode the corpus and build `folder`/dense.faiss; `folder`/shards is gone when it is done."""
    encoder = Encoder(encoder_folder(settings["encoder"]), settings["max_tokens"], compute_dtype())
    index = blank_index(settings["faiss"], encoder.dimension)
    shards = encode_shards(passages, encoder, settings["batch"], folder / "shards")
    if not index.is_trained:
        train(index, shards, len(passages))
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # HNSW links depend on the order in which threads add vectors
    for shard in shards:
        index.add(np.load(shard))
    faiss.omp_set_num_threads(threads)
    faiss.write_index(index, str(folder / "dense.faiss"))
    shutil.rmtree(folder / "shards")


class Dense:
    """A FAISS index and its encoder, opened for searching."""

    def __init__(self, folder: Path, passages: Passages, manifest: dict):
        source = encoder_folder(manifest["settings"]["encoder"])
        self.passages = passages
        try:
            flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY
            self.index = faiss.read_index(str(folder / "dense.faiss"), flags)
        except RuntimeError as error:
            raise UserError(f"{folder}: unreadable FAISS index: {error}; build it again") from None
        self.encoder = Encoder(source, manifest["settings"]["max_tokens"])
        if self.encoder.dimension != self.index.d:
            raise UserError(
                f"{folder}: vectors have {self.index.d} dimensions, "
                f"the encoder {source} has {self.encoder.dimension}"
            )
        if fingerprint(source) != manifest["encoder_sha256"]:
            raise UserError(
                f"{folder}: encoder {source} is not the one the index was built with; build it again"
            )

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def search(self, queries: list[str], k: int) -> list[Ranking]:
        """The best `k` of each query by inner product, ties by id."""
        return [self._best(vector[None], k) for vector in self.encoder.queries(queries)]

    def _best(self, vector: np.ndarray, k: int) -> Ranking:
        """Look further down as long as the `k`-th score goes on, then order equal scores by id."""
        count = min(k + EXTRA, len(self))
        while True:
            scores, rows = self.index.search(vector, count)
            if count == len(self) or scores[0, k - 1] != scores[0, -1]:
                break
            count = min(2 * count, len(self))
        found = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        ranking = [(self.passages.id(row), score) for row, score in found if row >= 0]
        return sorted(ranking, key=lambda hit: (-hit[1], hit[0]))[:k]
