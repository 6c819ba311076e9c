"""Opened index folders -> hits. Two or more indexes are fused by reciprocal rank.

    score(passage) = sum over indexes of 1 / (60 + rank)

Ranks count from 1 in each index's best `DEPTH`. That depth does not depend on `k`, so that the best 3 are
always the first 3 of the best 10. Equal scores are ordered by id. If a folder of kind rerank stands among
the indexes, its cross-encoder orders the fused hits anew.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from pipeline import storage
from pipeline.errors import UserError
from retrieval.indexes.bm25 import Bm25
from retrieval.indexes.hits import Hit, Ranking, clean
from retrieval.indexes.manifest import digest, read_manifest
from retrieval.indexes.passages import Passages

RRF_CONSTANT = 60
DEPTH = 100
CACHED_HITS = 300_000  # about 60 MB
CACHED_CHARS = 200  # of a query that is remembered
QUERY_WEIGHT = 5  # a remembered query takes at most as much memory as so many hits


def fuse(rankings: Sequence[Sequence[str]]) -> Ranking:
    """Reciprocal-rank fusion of id lists, each best first."""
    parts: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            parts.setdefault(name, []).append(1 / (RRF_CONSTANT + rank))
    # fsum: the order of the indexes must not show in the last bit
    return sorted(
        ((name, math.fsum(part)) for name, part in parts.items()), key=lambda hit: (-hit[1], hit[0])
    )


class Searcher:
    """Opened indexes over one corpus. `identity` tells which, whatever machine built them."""

    def __init__(self, folders: Sequence[Path], manifests: Sequence[dict[str, Any]]):
        self.corpus_sha256: str = manifests[0]["corpus_sha256"]
        self.identity: str = digest(sorted(manifest["identity"] for manifest in manifests))
        self.passages = Passages(folders[0])
        # A group's trajectories repeat each other's queries.
        self.cache: LRUCache[tuple[str, int], Ranking] = LRUCache(
            CACHED_HITS, lambda ranking: len(ranking) + QUERY_WEIGHT
        )
        self.indexes: list[Any] = []
        self.reranker: Any = None
        for folder, manifest in zip(folders, manifests, strict=True):
            if manifest["kind"] == "rerank":
                self.reranker = open_reranker(manifest)
                continue
            self.indexes.append(open_index(folder, manifest, self.passages))
            if len(self.indexes[-1]) != manifest["rows"]:
                raise UserError(
                    f"{folder}: {len(self.indexes[-1])} of {manifest['rows']} passages; build it again"
                )

    def __len__(self) -> int:
        return len(self.passages)

    def get(self, name: str) -> Hit | None:
        """The passage of an id, with score 0; None when there is none."""
        row = self.passages.find(name)
        return None if row is None else Hit(*self.passages.row(row), 0.0)

    def following(self, name: str, k: int) -> list[Hit]:
        """At most `k` passages right after passage `name` that have its title, with score 0."""
        row = self.passages.find(name)
        if row is None:
            return []
        title = self.passages.row(row)[1]
        after = map(self.passages.row, range(row + 1, min(row + 1 + k, len(self))))
        return [
            Hit(*passage, 0.0) for passage in itertools.takewhile(lambda passage: passage[1] == title, after)
        ]

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most `k` hits for each query, best first, ties by id; none for a blank query or `k` 0.

        Not for several threads at a time.
        """
        queries = list(map(clean, queries))
        query_set = {query for query in queries if query.strip()} if k > 0 else set()
        rankings = {query: self.cache[query, k] for query in query_set if (query, k) in self.cache}
        new = sorted(query_set - rankings.keys())
        if new:
            rankings |= zip(new, self._rankings(new, min(k, len(self))), strict=True)
        if k <= DEPTH:
            self.cache.update(((query, k), rankings[query]) for query in new if len(query) <= CACHED_CHARS)
        return [[self._hit(*hit) for hit in rankings.get(query, [])] for query in queries]

    def _rankings(self, queries: list[str], k: int) -> list[Ranking]:
        if len(self.indexes) == 1 and not self.reranker:
            return self.indexes[0].search(queries, k)
        depth = min(DEPTH, len(self))
        lists = zip(*(index.search(queries, depth) for index in self.indexes), strict=True)
        fusions = [fuse([[name for name, _ in ranking] for ranking in rankings]) for rankings in lists]
        if self.reranker:
            fusions = list(map(self._rerank, queries, fusions))
        return [ranking[:k] for ranking in fusions]

    def _rerank(self, query: str, ranking: Ranking) -> Ranking:
        hits = [self._hit(*pair) for pair in ranking[:DEPTH]]
        scores = self.reranker.scores(query, [f"{hit.title}\n{hit.text}" for hit in hits]) if hits else []
        pairs = zip((hit.id for hit in hits), scores, strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def _hit(self, name: str, score: float) -> Hit:
        row = self.passages.find(name)
        if row is None:
            raise UserError(f"the index holds id {name!r}, its passages do not; build it again")
        return Hit(*self.passages.row(row), score)


def open_index(folder: Path, manifest: dict[str, Any], passages: Passages) -> Any:
    """Open the index of one folder; only a dense one imports torch."""
    if manifest["kind"] == "bm25":
        return Bm25(folder, manifest["settings"]["k1"], manifest["settings"]["b"])
    from retrieval.indexes.dense import Dense

    return Dense(folder, passages, manifest)


def open_reranker(manifest: dict[str, Any]) -> Any:
    """Load the cross-encoder of a manifest."""
    from retrieval.indexes.rerank import Reranker

    return Reranker(Path(manifest["settings"]["reranker"]), manifest["encoder_sha256"])


def open_searcher(index_dirs: Sequence[Path]) -> Searcher:
    """Open index folders for searching.

    Raises UserError if one is no index, incomplete, or built from another corpus than the first.
    """
    folders = [Path(folder) for folder in index_dirs]
    manifests = [read_manifest(folder) for folder in folders]
    if all(manifest["kind"] == "rerank" for manifest in manifests):
        raise UserError("no index of passages: give --index DIR, a folder of kind bm25 or dense")
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest["corpus_sha256"] != manifests[0]["corpus_sha256"]:
            raise UserError(
                f"{folder} and {folders[0]} are indexes of different corpora; build both from one"
            )
    return Searcher(folders, manifests)


def check_corpus(searcher: Any, questions: Path) -> None:
    """Raise UserError if a questions file and the opened indexes are known to be of different corpora."""
    question_corpus = storage.footer(questions, "corpus_sha256")
    index_corpus = getattr(searcher, "corpus_sha256", "")
    if question_corpus and index_corpus and question_corpus != index_corpus:
        raise UserError(
            f"{questions}: made from corpus {question_corpus[:12]}…, but the index holds corpus "
            f"{index_corpus[:12]}…: "
            "index the corpus that the questions belong to, or make them again from this one"
        )
