"""A search server's URL behind `search(queries, k)`: ours, Search-R1's, whatever speaks /retrieve.

A document may be an object or a text, wrapped in {"document", "score"} or bare; the score may be missing.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pipeline.errors import UserError
from retrieval.indexes.hits import Hit, Search, clean
from retrieval.indexes.searcher import open_searcher
from retrieval.server.exchange import TIMEOUT_S, Exchange, is_http
from retrieval.sources.rows import titled

QUERIES = 64  # of one request: a slow server answers it in time
IDENTITY_HEADER = "X-Index-Identity"
UNKNOWN = "unknown"


def to_hit(item: Any) -> Hit:
    """One entry of an answer, in any known form; ValueError if it has no text.

    A document without id gets a hash of its content as its id.
    """
    document, score = item, 0.0
    if isinstance(item, dict) and "document" in item:
        document, score = item["document"], item.get("score") or 0.0
    if isinstance(document, str):
        document = {"contents": document}
    if not isinstance(document, dict):
        raise ValueError(f"a document is {type(document).__name__}")
    if isinstance(document.get("contents"), str):
        title, text = titled(document["contents"], str(document.get("title") or ""))
    elif isinstance(document.get("text"), str):
        title, text = document.get("title") or "", document["text"]
    else:
        raise ValueError(f"a document has neither contents nor text: {sorted(document)}")
    name = document.get("id")
    if name is None:
        name = "sha256:" + hashlib.sha256(f"{title}\n{text}".encode("utf-8", "replace")).hexdigest()[:16]
    return Hit(clean(str(name)), clean(str(title)), clean(text), float(score))


class HttpSearcher:
    """The searcher behind a URL. `identity`: of the index that answers, or "unknown"."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S):
        if not is_http(url):
            raise UserError(f"{url}: not a search URL; expected such as http://127.0.0.1:8000")
        url = url.rstrip("/")
        self.url = url if urlsplit(url).path else f"{url}/retrieve"
        self.exchange = Exchange(url, "the search server", timeout_s)
        self.identity = UNKNOWN

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most `k` hits for each query, none for a blank one; at most `QUERIES` in one request.

        Raises UserError if the server does not answer or answers something else, Refused if it does
        not take these queries.
        """
        if k < 1:
            return [[] for _ in queries]
        texts = [query for query in queries if query.strip()]
        parts = (texts[low : low + QUERIES] for low in range(0, len(texts), QUERIES))
        hit_lists = iter([hits for part in parts for hits in self._search(part, k)])
        return [next(hit_lists) if query.strip() else [] for query in queries]

    def _search(self, queries: list[str], k: int) -> list[list[Hit]]:
        answer = self._ask(self.url, {"queries": queries, "topk": k, "return_scores": True})
        try:
            lists = answer["result"]
            whole = isinstance(lists, list) and all(isinstance(items, list) for items in lists)
            if not whole or len(lists) != len(queries):
                raise ValueError(f"expected {len(queries)} lists of hits")
            return [[to_hit(item) for item in items][:k] for items in lists]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.url}: unexpected answer: {error!r}") from None

    def get(self, name: str) -> Hit | None:
        """The passage of an id, with score 0; None if the server has none. For our server."""
        return next(iter(self._documents(name, "")), None)

    def following(self, name: str, k: int) -> list[Hit]:
        """At most `k` passages right after passage `name` that have its title. For our server."""
        return self._documents(name, f"?following={k}")

    @cached_property
    def corpus_sha256(self) -> str:
        """Hash of the corpus that the server says it searches; "" of a server that isn't ours."""
        if self.identity == UNKNOWN:
            return ""
        return str(self._ask(f"{self.url.rpartition('/')[0]}/health", None)["corpus_sha256"])

    def _documents(self, name: str, query: str) -> list[Hit]:
        """What the server's /document says; nothing for 404."""
        url = f"{self.url.rpartition('/')[0]}/document/{quote(name, safe='')}{query}"
        answer = self._ask(url, None)
        try:
            return [
                to_hit(item) for item in (answer if isinstance(answer, list) else [answer] if answer else [])
            ]
        except (TypeError, ValueError) as error:
            raise UserError(f"{url}: unexpected answer: {error!r}") from None

    def _ask(self, url: str, body: dict[str, Any] | None) -> Any:
        """POST a body, or GET without one, and decode; None for a document that isn't there.

        Raises UserError if the path itself isn't there.
        """
        answer = self.exchange.ask(url, body)
        if answer.status_code == 404:
            if IDENTITY_HEADER in answer.headers:
                return None
            raise UserError(f"{url}: not found: no `retrieval serve`, or a gateway that keeps this from it")
        identity = answer.headers.get(IDENTITY_HEADER, UNKNOWN)
        if self.identity not in (UNKNOWN, identity):
            raise UserError(f"{url}: another index answers than before; run the stage again")
        self.identity = identity
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{url}: the answer is not JSON: {error}") from None


def open_search(index_dirs: Sequence[Path] | None, url: str | None, k: int) -> Search:
    """The searcher of a stage that takes --index DIR … or --search URL; exactly one of them is given.

    A server is asked for `k` hits, so that one that can't be used is known before a model is loaded.
    """
    if bool(index_dirs) == bool(url):
        raise UserError("give either --index DIR or --search URL")
    if not url:
        return open_searcher(index_dirs or [])
    searcher = HttpSearcher(url)
    searcher.search(["Paris"], k)  # other servers than ours have no /health
    return searcher
