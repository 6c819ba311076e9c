"""A search server under mixed load for minutes -> docs/results/soak.md.

    python -m benchmarks.soak --seconds 600        after the mini experiment: it serves results/index

A fresh server is asked every query alone, one after another. Then 32 clients at once send the same queries to
other servers, and among them malformed, oversized and cancelled requests: every answer must have the bytes of
the fresh server's, scores included. A server remembers what it has answered, so each round has a new one.
Counts what was answered and watches the server's memory.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.pages.measure import machine
from benchmarks.retrieval import QUESTIONS, first_answer, free_port
from benchmarks.search.load import message
from pipeline.devices import compute_dtype

FOLDERS = [Path("results/index/bm25"), Path("results/index/dense")]
CLIENTS = 32
ASKED = 2000  # different queries
ROUNDS = 3  # servers, one after another
TOO_LONG = "x" * 8192  # with a question beyond the server's characters per query
OUT = Path("docs/results/soak.md")
KINDS = {"good": 0.7, "malformed": 0.1, "oversized": 0.1, "cancelled": 0.1}
EXPECTED = {"good": b"200", "malformed": b"422", "oversized": b"413"}


def memory(process: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def request(query: str) -> bytes:
    """The body of a request for the best 3 of a query."""
    return json.dumps({"queries": [query], "topk": 3, "return_scores": True}).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return head.split()[1], await reader.readexactly(size)


@contextmanager
def server() -> Iterator[tuple[subprocess.Popen, int]]:
    """A new server's process and port; RuntimeError if it doesn't stop as it should."""
    port = free_port()
    command = [sys.executable, "-m", "retrieval.serve", "--port", str(port), "--index", *map(str, FOLDERS)]
    process = subprocess.Popen(command)
    first_answer(port, process, time.perf_counter())
    try:
        yield process, port
    finally:
        process.terminate()
        if code := process.wait(60):
            raise RuntimeError(f"the server stopped with exit code {code}")


async def alone(port: int, queries: list[str]) -> list[tuple[str, bytes]]:
    """Each query with the body of its answer, asked one after another."""
    answers = []
    for query in queries:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(message(request(query)))
        answers.append((query, (await answer(reader))[1]))
        writer.close()
    return answers


class Client:
    """One client; `counts` says how often its requests ended in which way."""

    def __init__(self, port: int, answers: list[tuple[str, bytes]], seed: int, counts: Counter[str]):
        self.port, self.answers, self.counts = port, answers, counts
        self.draw = random.Random(seed)

    async def run(self, until: float) -> None:
        """Send requests until the time is up, each over its own connection."""
        while time.monotonic() < until:
            kind = self.draw.choices(list(KINDS), list(KINDS.values()))[0]
            question, right_answer = self.draw.choice(self.answers)
            query = question + TOO_LONG if kind == "oversized" else question
            body = request(query)
            data = message(body[:-3] + b"!!!" if kind == "malformed" else body)
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data[: len(data) // self.draw.choice((1, 2))] if kind == "cancelled" else data)
            await writer.drain()
            if kind == "cancelled":
                self.counts["cancelled"] += 1
            else:
                self.note(kind, await answer(reader), right_answer)
            writer.close()

    def note(self, kind: str, response: tuple[bytes, bytes], right_answer: bytes) -> None:
        """Count an answer as right, busy or wrong."""
        status, body = response
        if status == b"503":
            self.counts["busy"] += 1
            return
        right = status == EXPECTED[kind] and (kind != "good" or body == right_answer)
        self.counts[kind if right else f"wrong answer to {kind}"] += 1


async def soak(
    process: subprocess.Popen, port: int, answers: list[tuple[str, bytes]], seconds: float, seed: int
) -> tuple[Counter[str], list[float]]:
    """Counts, and the server's memory every ten seconds."""
    counts: Counter[str] = Counter()
    until, sizes = time.monotonic() + seconds, []
    clients = [Client(port, answers, seed + i, counts).run(until) for i in range(CLIENTS)]
    tasks = [asyncio.create_task(client) for client in clients]
    while time.monotonic() < until:
        await asyncio.sleep(min(10, seconds / 10))
        sizes.append(memory(process.pid))
        print(f"{until - time.monotonic():.0f} s left, {sizes[-1]:.0f} MB, {dict(counts)}", flush=True)
    await asyncio.gather(*tasks)
    return counts, sizes


def queries() -> list[str]:
    """Questions, whole and cut off, so that many lengths stand side by side."""
    questions = pq.read_table(QUESTIONS)["question"].to_pylist()
    draw = random.Random(0)
    cuts = [question[: draw.randrange(5, len(question))].strip() for question in questions]
    return list(dict.fromkeys([*questions, *cuts]))[:ASKED]


def main() -> None:
    """Serve, soak, stop, write the page; exit code 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="of all rounds together")
    args = parser.parse_args()
    with server() as (_, port):
        answers = asyncio.run(alone(port, queries()))
    total: Counter[str] = Counter()
    for number in range(ROUNDS):
        with server() as (process, port):
            counts, sizes = asyncio.run(soak(process, port, answers, args.seconds / ROUNDS, number * CLIENTS))
        total += counts
    wrong = sum(count for name, count in total.items() if name.startswith("wrong"))
    lines = [
        "# Soak",
        "",
        f"Made by `python -m benchmarks.soak --seconds {args.seconds:.0f}`: {CLIENTS} clients, hybrid index,"
        f" {len(answers)} queries, {ROUNDS} servers one after another. An answer is good if it has the bytes"
        f" that a fresh server gave to the query alone. Made on: {machine(compute_dtype())}.",
        "",
        "| outcome | requests |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in sorted(total.items())),
        f"| wrong answers | {wrong} |",
        "",
        f"Memory of the last server: {sizes[len(sizes) // 5]:.0f} MB after a fifth of its time,"
        f" {sizes[-1]:.0f} MB at the end. All stopped with exit code 0.",
        "",
    ]
    OUT.write_text("\n".join(lines))
    print(OUT.read_text())
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
