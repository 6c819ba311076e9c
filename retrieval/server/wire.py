"""The server's requests and answers: forms, synonyms, limits. No index is opened here."""

import asyncio
import itertools
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AliasChoices, BaseModel, Field, ValidationError, model_validator
from starlette.requests import ClientDisconnect

from retrieval.indexes.hits import Hit
from retrieval.indexes.searcher import DEPTH


@dataclass(frozen=True)
class Limits:
    """What a server takes on."""

    queries: int = 4096  # per request
    chars: int = 8192  # per query
    k: int = DEPTH
    body_bytes: int = 16 << 20
    waiting: int = 8192  # queries of all requests that are not yet answered
    batch: int = 64  # queries per call of the searcher


SYNONYMS = (("queries", "query_list"), ("topk", "k"))


class RequestBody(BaseModel):
    """A request whose body is looked at as a whole first; a null counts as not given."""

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, body: Any) -> Any:
        """The keys that have a value; ValueError for two that differ, and for a truth as a number."""
        if not isinstance(body, dict):
            return body
        values = {key: value for key, value in body.items() if value is not None}
        for name, other in SYNONYMS:
            if name in values and other in values and values[name] != values[other]:
                raise ValueError(f"{name} and {other} differ: give one")
        for name in SYNONYMS[1]:
            counts = values.get(name)
            if any(isinstance(count, bool) for count in (counts if isinstance(counts, list) else [counts])):
                raise ValueError(f"{name} is true or false: give a number")
        return values


class Retrieve(RequestBody):
    """Search-R1's request, with synonyms."""

    queries: list[str] = Field(validation_alias=AliasChoices("queries", "query_list"))
    topk: int | None = Field(None, ge=0, validation_alias=AliasChoices("topk", "k"))
    return_scores: bool = False


class Search(RequestBody):
    """SearchAgentReview's request: only queries with text stay."""

    queries: list[Any] = Field([], validation_alias=AliasChoices("query_list", "queries"))
    k: int | list[int] | None = Field(None, validation_alias=AliasChoices("k", "topk"))
    return_scores: bool = True


Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer")


def document(hit: Hit) -> dict[str, str]:
    """A passage in the union of the forms that clients read."""
    return {"id": hit.id, "title": hit.title, "text": hit.text, "contents": f'"{hit.title}"\n{hit.text}'}


def shown(hits: list[Hit], scores: bool) -> list[dict[str, Any]]:
    """Hits with their scores, or bare documents."""
    return [{"document": document(hit), "score": hit.score} if scores else document(hit) for hit in hits]


async def read(request: Request, model: type[Body], limit: int) -> Body:
    """Read and check a request's body; 413 beyond `limit` bytes, 422 in FastAPI's form if it misfits."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HTTPException(413, f"the request has more than {limit} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the client left before the request was whole") from None
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors]) from None


async def left(request: Request) -> None:
    """Wait until the client of a request that has been read leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_left(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of `work`. If the client leaves first, `work` is cancelled; nobody reads the 499."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(left(request))
    leaving.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if not leaving.done():  # the server itself is ended
            raise
        raise HTTPException(499, "the client left before it was answered") from None
    finally:
        leaving.cancel()


def check(queries: list[str], k: int, limits: Limits) -> None:
    """Refuse what is over the limits."""
    if len(queries) > limits.queries:
        raise HTTPException(413, f"{len(queries)} queries, at most {limits.queries} in one request")
    if any(len(query) > limits.chars for query in queries):
        raise HTTPException(413, f"a query has more than {limits.chars} characters")
    if k > limits.k:
        raise HTTPException(422, f"topk {k}, at most {limits.k}")


def searches(request: Search, topk: int) -> list[tuple[str, int]]:
    """The queries of a /search request and how many hits each wants; 400 in SearchAgentReview's words.

    `k` counts queries with those that are dropped, or without; one number serves all, none is the server's.
    """
    mask = [isinstance(query, str) and bool(query.strip()) for query in request.queries]
    queries = list(itertools.compress(request.queries, mask))
    if not queries:
        raise HTTPException(400, "query_list is empty")
    counts = request.k if isinstance(request.k, list) else [topk if request.k is None else request.k]
    if len(counts) == len(mask):
        counts = list(itertools.compress(counts, mask))
    if len(counts) < 2:
        counts = (counts or [topk]) * len(queries)
    if len(counts) != len(queries):
        raise HTTPException(400, "k length mismatch with query_list")
    if min(counts) < 1:
        raise HTTPException(400, "k must be positive")
    return list(zip(queries, counts, strict=True))
