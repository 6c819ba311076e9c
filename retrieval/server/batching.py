"""Concurrent requests -> few calls of a searcher in one worker thread, with a bounded queue.

While the thread searches, requests gather; the next call takes as many as have come, and may wait a little
for as many as the last one had. Only queries with the same `k` share a call, and a searcher's answer does not
depend on what else is asked: batching never shows.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from retrieval.indexes.hits import Hit, Search

Hits = list[list[Hit]]
PATIENCE = 0.3  # of a call's time; measured: up to twice as many requests if clients ask the same


class Busy(Exception):
    """More queries are waiting than the queue takes."""


@dataclass(frozen=True, slots=True)
class Job:
    """A part of a request that waits for its hits."""

    queries: list[str]
    k: int
    answer: "asyncio.Future[Hits]"

    @property
    def load(self) -> int:
        """Queries to search: none if the client has gone."""
        return 0 if self.answer.done() else len(self.queries)


class Batcher:
    """Answers queries through one thread. `limit`: waiting queries; `size`: queries per call."""

    def __init__(self, searcher: Search, limit: int, size: int, observe: Callable[[int], None]):
        self.searcher, self.limit, self.size, self.observe = searcher, limit, size, observe
        self.waiting = 0
        self.last_size, self.last_seconds = 0, 0.0
        self.jobs: asyncio.Queue[Job] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self.worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self.worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish what is waiting, then stop."""
        await self.jobs.join()
        if self.worker:
            self.worker.cancel()
        self.thread.shutdown()

    async def search(self, queries: Sequence[str], k: int) -> Hits:
        """The hits of each query. Raises Busy at once if the queue has no room.

        If the caller is cancelled, its queries that no call has taken yet are not searched.
        """
        if self.waiting + len(queries) > self.limit:
            raise Busy
        self.waiting += len(queries)
        loop = asyncio.get_running_loop()
        parts = [list(queries[start : start + self.size]) for start in range(0, len(queries), self.size)]
        jobs = [Job(part, k, loop.create_future()) for part in parts]
        for job in jobs:
            self.jobs.put_nowait(job)
        return [hits for answer in await asyncio.gather(*(job.answer for job in jobs)) for hits in answer]

    async def _gather(self) -> None:
        """Wait for as many queries as the last call had, at most `PATIENCE` of its time."""
        until = time.monotonic() + PATIENCE * self.last_seconds
        while self.waiting < self.last_size and time.monotonic() < until:
            await asyncio.sleep(0.001)

    def _take(self, first: Job) -> list[Job]:
        """The first job and those behind it that fit into the same call."""
        batch, queries = [first], first.load
        while queries < self.size and not self.jobs.empty():
            batch.append(self.jobs.get_nowait())
            queries += batch[-1].load
        return batch

    async def _work(self) -> None:
        while True:
            first = await self.jobs.get()
            await self._gather()
            batch = self._take(first)
            for k in sorted({job.k for job in batch}):
                await self._answer([job for job in batch if job.k == k and job.load], k)
            for job in batch:
                self.waiting -= len(job.queries)
                self.jobs.task_done()

    async def _answer(self, jobs: list[Job], k: int) -> None:
        """Search for several jobs in one call, if any; an error goes to each of them."""
        if not jobs:
            return
        queries = [query for job in jobs for query in job.queries]
        self.observe(len(queries))
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            results = iter(await loop.run_in_executor(self.thread, self.searcher.search, queries, k))
        except Exception as error:  # whatever it is, the requests must not hang
            for job in jobs:
                if not job.answer.done():
                    job.answer.set_exception(error)
            return
        self.last_size, self.last_seconds = len(queries), time.monotonic() - start
        for job in jobs:
            hits = [next(results) for _ in job.queries]
            if not job.answer.done():
                job.answer.set_result(hits)
