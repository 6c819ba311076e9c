"""A search server's URL behind `search(queries, k)`: ours, Search-R1's, whatever speaks /retrieve.

A document may be an object or a text, wrapped in {"document", "score"} or bare; the score may be missing.
"""

import hashlib
import http.client
import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pipeline.errors import UserError
from retrieval.indexes.hits import Hit, Search, clean
from retrieval.indexes.searcher import open_searcher
from retrieval.sources.rows import split_contents

TIMEOUT_S = 60
QUERIES = 64  # of one request: a slow server answers it in time
DELAYS_S = (0.5, 1.0, 2.0)  # before each further try
RETRIED = (408, 429, 500, 502, 503, 504)
REFUSED = (400, 413, 422)  # what is wrong with one request, not with all of them
IDENTITY_HEADER = "X-Index-Identity"
UNKNOWN = "unknown"
Answer = TypeVar("Answer")


class Refused(UserError):
    """A server does not take this request: too long, too many, malformed. `reason`: its own words."""

    def __init__(self, url: str, reason: str):
        super().__init__(f"{url}: {reason}")
        self.reason = reason


def is_http(url: str) -> bool:
    """Whether a URL is one of a web server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # a bracket that isn't closed
        return False


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_retries(send: Callable[[], Answer], url: str, server: str) -> Answer:
    """What `send` returns, tried again if a server is busy or silent, as late as its Retry-After asks.

    Raises UserError that names the `server` and its `url` if it never answers or has an error, Refused
    if the request is to blame.
    """
    for delay in (*DELAYS_S, None):
        try:
            return send()
        except urllib.error.HTTPError as error:
            if error.code not in RETRIED or delay is None:
                said = " ".join(error.read(500).decode(errors="replace").split())
                refusal = f"HTTP {error.code}: {said}"
                known = Refused(url, refusal) if error.code in REFUSED else UserError(f"{url}: {refusal}")
                raise known from None
            wait = error.headers.get("Retry-After") or ""
            delay = max(delay, min(float(wait), 30.0)) if wait.isdecimal() else delay
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            if delay is None:
                reason = getattr(error, "reason", error)
                raise UserError(f"{url}: {server} does not answer: {reason}") from None
        time.sleep(delay)
    raise AssertionError("unreachable")


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
        title, text = split_contents(document["contents"])
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
        self.url = url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/retrieve"
        self.timeout_s = timeout_s
        self.identity = UNKNOWN
        # A proxy from the environment must not see what stays on this machine.
        handlers = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
        self.opener = urllib.request.build_opener(*handlers)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most `k` hits for each query, none for a blank one; at most `QUERIES` in one request.

        Raises UserError if the server does not answer or answers something else, Refused if it does
        not take these queries.
        """
        if k < 1:
            return [[] for _ in queries]
        asked = [query for query in queries if query.strip()]
        parts = (asked[low : low + QUERIES] for low in range(0, len(asked), QUERIES))
        found = iter([hits for part in parts for hits in self._search(part, k)])
        return [next(found) if query.strip() else [] for query in queries]

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
        """Of the corpus that the server says it searches; "" of a server that isn't ours."""
        if self.identity == UNKNOWN:
            return ""
        return str(self._ask(f"{self.url.rpartition('/')[0]}/health", None)["corpus_sha256"])

    def _documents(self, name: str, query: str) -> list[Hit]:
        """What the server's /document says; nothing for 404."""
        url = f"{self.url.rpartition('/')[0]}/document/{quote(name, safe='')}{query}"
        found = self._ask(url, None)
        try:
            return [to_hit(item) for item in (found if isinstance(found, list) else [found] if found else [])]
        except (TypeError, ValueError) as error:
            raise UserError(f"{url}: unexpected answer: {error!r}") from None

    def _ask(self, url: str, body: dict[str, Any] | None) -> Any:
        """POST a body, or GET without one, and decode; tries again if a server is busy or silent."""
        try:
            return with_retries(lambda: self._send(url, body), url, "the search server")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{url}: the answer is not JSON: {error}") from None

    def _send(self, url: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with self.opener.open(request, timeout=self.timeout_s) as answer:
                told = answer.headers.get(IDENTITY_HEADER, UNKNOWN)
                if self.identity not in (UNKNOWN, told):
                    raise UserError(f"{url}: another index answers than before; run the stage again")
                self.identity = told
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404 and body is None:
                return None
            raise


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
