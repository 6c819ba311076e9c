"""Retrievers for control experiments, behind `search(queries, k)`: does an agent need what it searches for?

`Empty` finds nothing, `Random` arbitrary passages, `Noisy` replaces a share of true hits by arbitrary ones,
`Oracle` returns a question's own supporting passages, so it is asked the question's id in place of a query:
two questions may have the same words. What is drawn depends on seed, query and rank only.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from retrieval.indexes.hits import Hit
from retrieval.indexes.searcher import Searcher


def draw(below: int, *key: object) -> int:
    """A number in [0, below) that depends on `key` alone."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) % below


class Empty:
    """Finds nothing."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """No hits for each query."""
        return [[] for _ in queries]


class Random:
    """Finds `k` different arbitrary passages, the same ones for the same query."""

    def __init__(self, searcher: Searcher, seed: int):
        self.searcher, self.seed = searcher, seed

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """`k` arbitrary hits for each query, score 0."""
        return [self._hits(query, k) for query in queries]

    def _hits(self, query: str, k: int) -> list[Hit]:
        rows: dict[int, None] = {}
        attempt = 0
        while len(rows) < min(k, len(self.searcher)):
            rows.setdefault(draw(len(self.searcher), "random", self.seed, query, attempt))
            attempt += 1
        return [Hit(*self.searcher.passages.row(row), 0.0) for row in rows]


class Noisy:
    """A searcher whose hits are replaced by arbitrary passages with probability `share`."""

    def __init__(self, searcher: Searcher, share: float, seed: int):
        self.searcher, self.share, self.seed = searcher, share, seed
        self.random = Random(searcher, seed)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The searcher's hits, some replaced; a replacement keeps the score and repeats no hit."""
        true = self.searcher.search(queries, k)
        return [self._mix(query, hits) for query, hits in zip(queries, true, strict=True)]

    def _mix(self, query: str, hits: list[Hit]) -> list[Hit]:
        ids = {hit.id for hit in hits}
        spare = iter([hit for hit in self.random.search([query], 2 * len(hits))[0] if hit.id not in ids])
        swaps = [
            draw(1 << 32, "noisy", self.seed, query, rank) < self.share * (1 << 32)
            for rank in range(len(hits))
        ]
        return [
            replace(next(spare, hit), score=hit.score) if swap else hit
            for hit, swap in zip(hits, swaps, strict=True)
        ]


class Oracle:
    """Finds the supporting passages of a question. `gold`: question id -> ids of its passages."""

    def __init__(self, searcher: Searcher, gold: Mapping[str, Sequence[str]]):
        self.searcher, self.gold = searcher, gold

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The first `k` supporting passages of each question id; none of an unknown one."""
        return [self._hits(question_id)[:k] for question_id in queries]

    def _hits(self, question_id: str) -> list[Hit]:
        hits = [(name, self.searcher.get(name)) for name in dict.fromkeys(self.gold.get(question_id, []))]
        for name, hit in hits:
            if hit is None:
                raise UserError(f"question {question_id!r}: supporting passage {name!r} is not in the index")
        return [hit for _, hit in hits if hit is not None]


Control = Empty | Random | Noisy | Oracle


def control(
    name: str, searcher: Any, questions: Sequence[Mapping[str, Any]], noise: float, seed: int
) -> Control:
    """The retriever `name` (empty, random, noisy, oracle) over opened indexes, for these questions.

    Raises UserError if the searcher is a server, whose passages can't be drawn from, and for an oracle of
    questions whose supporting passages are unknown.
    """
    if not isinstance(searcher, Searcher):
        raise UserError(f"rollout.retriever: {name!r} needs --index DIR, not a server")
    if name == "oracle":
        unknown = [row["question_id"] for row in questions if not row["supporting_ids"]]
        if unknown:
            raise UserError(f"rollout.retriever: an oracle needs supporting_ids; {unknown[0]!r} has none")
        return Oracle(searcher, {row["question_id"]: row["supporting_ids"] for row in questions})
    if name == "noisy":
        return Noisy(searcher, noise, seed)
    return Random(searcher, seed) if name == "random" else Empty()
