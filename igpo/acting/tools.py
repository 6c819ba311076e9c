"""What the agent's tools find: a search for many askers at once, the next passages of a page."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.indexes.hits import Hit
from retrieval.server.exchange import Refused


def search_all(searcher: Any, queries: Sequence[str], k: int) -> list[list[Hit]]:
    """The top k hits of every query; each distinct query is searched once."""
    distinct = sorted(set(queries))
    hits_of = dict(zip(distinct, searcher.search(distinct, k), strict=True)) if distinct else {}
    return [hits_of[query] for query in queries]


def search_apart(
    searcher: Any, query_lists: Sequence[Sequence[str]], k: int
) -> list[list[list[Hit]] | Refused]:
    """The hits of each asker's queries in one search; if a server refuses it, each asker's alone."""
    try:
        results = iter(search_all(searcher, [query for queries in query_lists for query in queries], k))
    except Refused as error:
        return (
            [error] if len(query_lists) == 1 else [search_apart(searcher, [one], k)[0] for one in query_lists]
        )
    return [list(itertools.islice(results, len(queries))) for queries in query_lists]


def read_on(searcher: Any, rows: Sequence[Mapping[str, Any]], title: str, k: int) -> list[Hit]:
    """A page's next k passages after the last one that a trajectory's rows show."""
    hit_ids = [hit for row in reversed(rows) for hit in reversed(row["hit_ids"])]
    last = next((name for name in hit_ids if (hit := searcher.get(name)) and hit.title == title), None)
    return searcher.following(last, k) if last is not None else []
