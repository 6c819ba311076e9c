"""Index folders -> HTTP server that stands in for Search-R1's, verl's and SearchAgentReview's.

    POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}   also `query_list`, `k`
    POST /search   the same by SearchAgentReview's rules
    GET  /document/{id}   /document/{id}?following=3   /health   /metrics

A document is {"id", "title", "text", "contents"}; contents = the quoted title, a line end, the text. Every
answer names the index in `X-Index-Identity`. Too much at once: 503 with Retry-After. Too long, too many: 4xx.
"""

import gc
import os
import signal
import socket
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline import stage
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.indexes.hits import Hit
from retrieval.indexes.searcher import DEPTH, Searcher, open_searcher
from retrieval.server.batching import Batcher, Busy
from retrieval.server.client import IDENTITY_HEADER
from retrieval.server.telemetry import Observed, Telemetry
from retrieval.server.wire import (
    Limits,
    Retrieve,
    Search,
    check,
    document,
    read,
    searches,
    shown,
    unless_left,
)


def add_reads(app: FastAPI, searcher: Searcher, telemetry: Telemetry) -> None:
    """Add the routes that look up and tell, and search nothing."""

    @app.get("/document/{name:path}")
    async def get_document(name: str, following: Annotated[int, Query(ge=0, le=DEPTH)] = 0) -> JSONResponse:
        hit = searcher.get(name)
        if hit is None:
            raise HTTPException(404, f"no passage with id {name!r}")
        if following:
            return JSONResponse([document(hit) for hit in searcher.following(name, following)])
        return JSONResponse(document(hit))

    @app.get("/health")
    async def health() -> JSONResponse:
        details = {
            "identity": searcher.identity,
            "corpus_sha256": searcher.corpus_sha256,
            "rows": len(searcher),
        }
        return JSONResponse({"status": "ok", **details})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(telemetry.registry), media_type=CONTENT_TYPE_LATEST)


def create_app(searcher: Searcher, topk: int = 3, limits: Limits | None = None) -> FastAPI:
    """The server's application over an opened searcher."""
    limits = limits or Limits()
    telemetry = Telemetry(lambda: batcher.waiting)
    batcher = Batcher(searcher, limits.waiting, limits.batch, telemetry.batch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.close()

    # No documentation pages: they would load scripts from the network.
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Observed, telemetry=telemetry, identity=searcher.identity)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        # Starlette answers this outside of all layers
        return JSONResponse({"detail": "internal error"}, 500, {IDENTITY_HEADER: searcher.identity})

    async def find(request: Request, queries: list[str], k: int) -> list[list[Hit]]:
        check(queries, k, limits)
        try:
            return await unless_left(request, batcher.search(queries, k))
        except Busy:
            detail = f"busy: {batcher.waiting} queries are waiting"
            raise HTTPException(503, detail, {"Retry-After": "1"}) from None

    async def retrieve(request: Request) -> JSONResponse:
        body = await read(request, Retrieve, limits.body_bytes)
        hit_lists = await find(request, body.queries, body.topk or topk)
        return JSONResponse({"result": [shown(hits, body.return_scores) for hits in hit_lists]})

    async def search(request: Request) -> JSONResponse:
        body = await read(request, Search, limits.body_bytes)
        queries, counts = zip(*searches(body, topk), strict=True)
        hit_lists = await find(request, list(queries), max(counts))
        top_hits = [hits[:k] for hits, k in zip(hit_lists, counts, strict=True)]
        return JSONResponse({"result": [shown(hits, body.return_scores) for hits in top_hits]})

    # plain routes: FastAPI's own take time to resolve dependencies, and these have none
    app.add_route("/retrieve", retrieve, methods=["POST"])
    app.add_route("/search", search, methods=["POST"])
    add_reads(app, searcher, telemetry)
    return app


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; UserError if the port is taken or the host is not ours."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}") from None


def arguments(parser: ArgumentParser) -> None:
    """Indexes and address."""
    parser.add_argument("--index", type=Path, nargs="+", action="extend", required=True, metavar="DIR")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--topk", type=int, default=3, help="hits per query if a request names no number")


def run(args: Namespace) -> str:
    """Serve until SIGINT or SIGTERM; answers what was already asked."""
    if not 1 <= args.topk <= DEPTH:
        raise UserError(f"--topk {args.topk}: expected 1 to {DEPTH}")
    with listen(args.host, args.port) as listener:
        # FAISS's and torch's threads would spin on a core for a while after each of their calls
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        # to look through what is loaded takes a quarter of a second, and finds nothing to collect
        gc.disable()
        try:
            searcher = open_searcher(args.index)
            app = create_app(searcher, args.topk)
            gc.freeze()
        finally:
            gc.enable()
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again after its shutdown
            signal.signal(number, lambda *_: None)
        log.info("serving %d passages on http://%s:%d", len(searcher), args.host, listener.getsockname()[1])
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=30)
        uvicorn.Server(config).run(sockets=[listener])
        gc.unfreeze()  # what is frozen at the end is reported as leaked by modules that the encoder loads
    return "stopped"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
