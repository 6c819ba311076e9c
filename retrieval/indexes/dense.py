"""Dense retrieval: an encoder's vectors of title + text in a FAISS index, memory-mapped."""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from pipeline.errors import UserError
from retrieval.encoder.encoder import open_encoder
from retrieval.encoder.folder import encoder_folder, fingerprint
from retrieval.indexes.factory import blank_index, plain, training_step
from retrieval.indexes.hits import Ranking
from retrieval.indexes.passages import Passages
from retrieval.indexes.vectors import encode_parts

EXTRA = 16  # candidates beyond k, to see the end of a run of equal scores

GRAPHS = ("HNSW", "NSG")  # whose links depend on the order in which threads add vectors

# From so many queries on FAISS calls BLAS. Its rounding depends on how many there are: never in a search.
BLAS_FROM, NEVER = faiss.cvar.distance_compute_blas_threshold, 1 << 30
faiss.cvar.distance_compute_blas_threshold = NEVER


def fill(index: faiss.Index, parts: Sequence[Path], rows: int, form: str) -> None:
    """Add all vectors to an empty index of a form; IVF and PQ learn from evenly spaced rows first.

    Raises UserError if FAISS can't do it.
    """
    step, threads = training_step(index, rows), faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1 if any(graph in form for graph in GRAPHS) else threads)
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM  # finds a vector's list five times as fast
        # copies: a slice would keep its part mapped, and the pages around each of its rows
        index.train(np.concatenate([np.load(part, mmap_mode="r")[::step].copy() for part in parts]))
        for part in parts:
            index.add(np.load(part))
    except RuntimeError as error:
        raise UserError(f"params: index.faiss does not fit {rows} passages: {plain(error)}") from None
    finally:
        faiss.omp_set_num_threads(threads)
        faiss.cvar.distance_compute_blas_threshold = NEVER


def write_flat(empty: faiss.IndexFlat, parts: Sequence[Path], rows: int, path: Path) -> None:
    """Write the file that `faiss.write_index` would, without holding all vectors in memory."""
    head = bytearray(faiss.serialize_index(empty).tobytes())
    head[8:16] = rows.to_bytes(8, "little")
    head[-8:] = (rows * empty.d).to_bytes(8, "little")  # how many floats follow
    with path.open("wb") as file:
        file.write(head)
        for part in parts:
            file.write(np.load(part).tobytes())


def build(passages: Passages, work: Path, settings: dict, vectors: Sequence[Path] | None) -> None:
    """Build `work`/made/dense.faiss from parts of vectors; None: encode them to `work`/vectors."""
    encoder = open_encoder(settings)
    index = blank_index(settings["faiss"], encoder.dimension, len(passages))
    texts = (f"{title}\n{text}" for _, title, text in passages)
    parts = vectors or encode_parts(texts, range(len(passages)), encoder, settings["batch"], work / "vectors")
    path = work / "made" / "dense.faiss"
    if isinstance(index, faiss.IndexFlat):
        write_flat(index, parts, len(passages), path)
    else:
        fill(index, parts, len(passages), settings["faiss"])
        faiss.write_index(index, str(path))


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
        self.encoder = open_encoder(manifest["settings"])
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
        vectors = self.encoder.queries(queries)
        results = zip(vectors, *self._scan(vectors, min(k + EXTRA, len(self))), strict=True)
        return [self._best(vector, k, scores, rows) for vector, scores, rows in results]

    def _scan(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """FAISS's scores and rows, (queries, count) each, in which it doesn't show what else is asked."""
        if isinstance(self.index, faiss.IndexFlat):  # rounds alike for two queries or more, not for one
            scores, rows = self.index.search(np.concatenate([vectors, vectors[:1]]), count)
            return scores[:-1], rows[:-1]
        results = [self.index.search(vector[None], count) for vector in vectors]
        return np.concatenate([scores for scores, _ in results]), np.concatenate(
            [rows for _, rows in results]
        )

    def _best(self, vector: np.ndarray, k: int, scores: np.ndarray, rows: np.ndarray) -> Ranking:
        """Look further down as long as the `k`-th score goes on, then order equal scores by id."""
        # a row below 0: an index of lists has looked at no more passages
        while len(rows) < len(self) and rows[-1] >= 0 and scores[k - 1] == scores[-1]:
            (scores,), (rows,) = self._scan(vector[None], min(2 * len(rows), len(self)))
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        ranking = [(self.passages.id(row), score) for row, score in pairs if row >= 0]
        return sorted(ranking, key=lambda hit: (-hit[1], hit[0]))[:k]
