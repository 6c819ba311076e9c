"""A search server under mixed load for minutes -> docs/results/soak.md.

    python -m benchmarks.soak --seconds 600        after the mini experiment: it serves results/index

32 clients send good requests, whose answers are compared with those of the opened indexes, and among them
malformed, oversized and cancelled ones. Counts what was answered and watches the server's memory.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.load import message
from benchmarks.retrieval import QUESTIONS, first_answer, free_port
from retrieval.indexes.searcher import open_searcher

FOLDERS = [Path("results/index/bm25"), Path("results/index/dense")]
CLIENTS = 32
ASKED = 400  # different questions
TOO_LONG = "x" * 8192  # with a question beyond the server's characters per query
OUT = Path("docs/results/soak.md")
KINDS = {"good": 0.7, "malformed": 0.1, "oversized": 0.1, "cancelled": 0.1}
EXPECTED = {"good": b"200", "malformed": b"422", "oversized": b"413"}


def memory(process: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Client:
    """One client; `seen` counts what came of its requests."""

    def __init__(self, port: int, known: list[tuple[str, list[str]]], seed: int, seen: Counter[str]):
        self.port, self.known, self.seen = port, known, seen
        self.draw = random.Random(seed)

    async def run(self, until: float) -> None:
        """Send requests until the time is up, each over its own connection."""
        while time.monotonic() < until:
            kind = self.draw.choices(list(KINDS), list(KINDS.values()))[0]
            question, expected = self.draw.choice(self.known)
            query = question + TOO_LONG if kind == "oversized" else question
            body = json.dumps({"queries": [query], "topk": 3, "return_scores": True}).encode()
            data = message(body[:-3] + b"!!!" if kind == "malformed" else body)
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data[: len(data) // self.draw.choice((1, 2))] if kind == "cancelled" else data)
            await writer.drain()
            if kind == "cancelled":
                self.seen["cancelled"] += 1
            else:
                self.note(kind, await self.answer(reader), expected)
            writer.close()

    async def answer(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        """Status and body."""
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return head.split()[1], await reader.readexactly(size)

    def note(self, kind: str, answer: tuple[bytes, bytes], expected: list[str]) -> None:
        """Count an answer as right, busy or wrong."""
        status, body = answer
        if status == b"503":
            self.seen["busy"] += 1
            return
        right = status == EXPECTED[kind]
        if right and kind == "good":
            hits = json.loads(body)["result"][0]
            right = [hit["document"]["id"] for hit in hits] == expected
        self.seen[kind if right else f"wrong answer to {kind}"] += 1


async def soak(process: subprocess.Popen, port: int, seconds: float) -> tuple[Counter[str], list[float]]:
    """Counts, and the server's memory every ten seconds."""
    questions = pq.read_table(QUESTIONS)["question"].to_pylist()[:ASKED]
    hits = open_searcher(FOLDERS).search(questions, 3)
    known = [(question, [hit.id for hit in found]) for question, found in zip(questions, hits, strict=True)]
    seen: Counter[str] = Counter()
    until, sizes = time.monotonic() + seconds, []
    clients = [asyncio.create_task(Client(port, known, i, seen).run(until)) for i in range(CLIENTS)]
    while time.monotonic() < until:
        await asyncio.sleep(min(10, seconds / 10))
        sizes.append(memory(process.pid))
        print(f"{until - time.monotonic():.0f} s left, {sizes[-1]:.0f} MB, {dict(seen)}", flush=True)
    await asyncio.gather(*clients)
    return seen, sizes


def main() -> None:
    """Serve, soak, stop, write the page; exit code 1 where an answer was wrong or the server died."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    args = parser.parse_args()
    port = free_port()
    command = [sys.executable, "-m", "retrieval.serve", "--port", str(port), "--index", *map(str, FOLDERS)]
    process = subprocess.Popen(command)
    first_answer(port, process, time.perf_counter())
    seen, sizes = asyncio.run(soak(process, port, args.seconds))
    process.terminate()
    code = process.wait(60)
    wrong = {name: count for name, count in seen.items() if name.startswith("wrong")}
    lines = [
        "# Soak",
        "",
        f"Made by `python -m benchmarks.soak --seconds {args.seconds:.0f}`: {CLIENTS} clients, hybrid index.",
        "",
        "| outcome | requests |",
        "| --- | ---: |",
        *(f"| {name} | {count:,} |" for name, count in sorted(seen.items())),
        f"| wrong answers | {sum(wrong.values())} |",
        "",
        f"Memory of the server: {sizes[len(sizes) // 5]:.0f} MB after a fifth of the time,"
        f" {sizes[-1]:.0f} MB at the end. It stopped with exit code {code}.",
        "",
    ]
    OUT.write_text("\n".join(lines))
    print(OUT.read_text())
    raise SystemExit(bool(wrong or code))


if __name__ == "__main__":
    main()
