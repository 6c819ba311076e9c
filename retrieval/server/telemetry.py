"""What the server counts, and the layer around it that counts and names the index in every answer."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.server.client import IDENTITY_HEADER


class Telemetry:
    """One server's Prometheus metrics, in a registry of its own."""

    def __init__(self, waiting: Callable[[], float]):
        self.registry = CollectorRegistry()
        labels = ["route", "status"]
        self.requests = Counter("retrieval_requests", "answered requests", labels, registry=self.registry)
        self.seconds = Histogram(
            "retrieval_seconds", "time to answer, seconds", ["route"], registry=self.registry
        )
        self.batches = Histogram(
            "retrieval_batch_queries",
            "queries per call of the searcher",
            registry=self.registry,
            buckets=[1, 2, 4, 8, 16, 32, 64],
        )
        gauge = Gauge("retrieval_waiting_queries", "queries not yet answered", registry=self.registry)
        gauge.set_function(waiting)

    def batch(self, queries: int) -> None:
        """Note one call of the searcher."""
        self.batches.observe(queries)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Note one answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)


class Observed:
    """ASGI layer: measures each request and adds the index's identity to its answer."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, identity: str):
        self.app, self.telemetry = app, telemetry
        self.header = (IDENTITY_HEADER.lower().encode(), identity.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), self.header]
            await send(message)

        try:
            await self.app(scope, receive, marked)
        finally:
            path = scope["path"] if "endpoint" in scope else "other"  # of a plain route
            route = str(getattr(scope.get("route"), "path", path))
            self.telemetry.request(route, status, time.perf_counter() - start)
