"""Clients of a /retrieve server: each asks one query after another over its own connection.

python -m benchmarks.search.load PORT QUESTIONS.parquet CLIENTS GROUP SECONDS   prints JSON

The clients of a group ask the same questions in the same order, as the trajectories of a rollout's group do;
beside that no query is asked twice.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq


def message(body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = [
        "POST /retrieve HTTP/1.1",
        "Host: l",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def body(questions: list[str], number: int, salt: str) -> bytes:
    """The request with question `number`; a second round, and another `salt`, asks something new."""
    query = f"{questions[number % len(questions)]} {salt}{number // len(questions)}"
    return json.dumps({"queries": [query], "topk": 3, "return_scores": True}).encode()


async def client(port: int, bodies: Iterator[bytes], until: float) -> list[float]:
    """Ask until the time is up; returns the seconds of every answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    while time.perf_counter() < until:
        request = message(next(bodies))
        start = time.perf_counter()
        writer.write(request)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n")[0]))
        if b" 200 " not in answer.split(b"\r\n")[0]:
            raise SystemExit(f"the server said {answer!r}")
        took.append(time.perf_counter() - start)
    writer.close()
    return took


async def main(port: int, path: str, clients: int, group: int, seconds: float) -> None:
    """Run all clients at once and print what they saw."""
    questions = pq.read_table(path)["question"].to_pylist()
    start, salt = time.perf_counter(), f"{clients} {group} "

    def bodies(number: int) -> Iterator[bytes]:
        numbers = itertools.count(number // group, clients // group)
        return (body(questions, number, salt) for number in numbers)

    asking = (client(port, bodies(number), start + seconds) for number in range(clients))
    took = [*itertools.chain.from_iterable(await asyncio.gather(*asking))]
    p50, p99 = np.percentile(took, [50, 99])
    print(json.dumps({"per_second": len(took) / (time.perf_counter() - start), "p50": p50, "p99": p99}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
