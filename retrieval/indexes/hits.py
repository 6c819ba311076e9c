"""What a search finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Ranking = list[tuple[str, float]]  # (id, score), best first


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found. `score` is higher for better hits and comparable within one query only."""

    id: str
    title: str
    text: str
    score: float


def clean(text: str) -> str:
    """Replace halves of surrogate pairs, which UTF-8 cannot express."""
    return text.encode("utf-8", "replace").decode()


class Search(Protocol):
    """Whatever answers queries: a Searcher, an HttpSearcher, a mode."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most `k` hits for each query, best first."""
