"""Speed of retrieval/ beside plain ways to do the same, in one run -> docs/results/retrieval_speed.md.

    pip install --no-deps -r requirements/benchmarks.txt
    python -m benchmarks.retrieval        after the mini experiment: it uses results/

Each measurement runs in a process of its own, on an otherwise idle machine: BM25 queries per second, server
throughput and latency by number of clients, encoder passages per second, cost of building by corpus size.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.search import growth
from benchmarks.search.load import message

INDEX = Path("results/index")
QUESTIONS = Path("results/questions/train.parquet")
WORK = Path("results/benchmarks")
OUT = Path("docs/results/retrieval_speed.md")
LOADS = ((1, 1), (8, 1), (32, 1), (32, 8))  # (clients, how many of them ask the same)
SECONDS = 6.0  # of load for each number of clients
K = 10


def per_second(work: Callable[[], object], items: int) -> float:
    """Items per second of the faster of two runs, after a short one."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return items / best


def questions() -> list[str]:
    """The questions asked in every measurement."""
    return pq.read_table(QUESTIONS)["question"].to_pylist()


def bm25_ours() -> float:
    """Queries per second of our BM25, one batch."""
    from retrieval.indexes.bm25 import Bm25

    index, queries = Bm25(INDEX / "bm25", 0.9, 0.4), questions()
    index.search(queries[:100], K)
    return per_second(lambda: index.search(queries, K), len(queries))


def bm25_pyserini() -> float:
    """The same through pyserini's LuceneSearcher.batch_search, with as many threads."""
    import jnius_config

    from retrieval.indexes import bm25

    os.environ |= {"JAVA_HOME": str(bm25.java_home()), "JVM_PATH": f"{bm25.java_home()}/lib/server/libjvm.so"}
    os.environ["OPENAI_API_KEY"] = "unused: importing pyserini's searchers asks for one"
    add = jnius_config.add_options
    jnius_config.add_options = lambda *options: add(*(o for o in options if "incubator.vector" not in o))
    from pyserini.search.lucene import LuceneSearcher

    index, queries = LuceneSearcher(str(INDEX / "bm25/lucene")), questions()
    index.set_bm25(0.9, 0.4)
    names, threads = [str(i) for i in range(len(queries))], os.cpu_count() or 1
    index.batch_search(queries[:100], names[:100], K, threads)
    return per_second(lambda: index.batch_search(queries, names, K, threads), len(queries))


def bm25_bm25s() -> float:
    """The same with bm25s and its numpy backend, tokenisation included."""
    import bm25s

    index, queries = bm25s.BM25(), questions()
    index.index(bm25s.tokenize(growth.texts(), stopwords="en", show_progress=False), show_progress=False)

    def ask() -> None:
        tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
        index.retrieve(tokens, k=K, show_progress=False)

    ask()
    return per_second(ask, len(queries))


def encoder_ours() -> float:
    """Passages per second of our encoder."""
    from pipeline.devices import compute_dtype
    from retrieval.encoder.encoder import Encoder
    from retrieval.encoder.folder import encoder_folder

    encoder, passages = Encoder(encoder_folder("minilm"), 256, compute_dtype()), growth.texts()[::10]
    return per_second(lambda: encoder.passages(passages, 64, lambda _: None), len(passages))


def encoder_sentence_transformers() -> float:
    """Passages per second of sentence-transformers' `encode`, as it comes."""
    from sentence_transformers import SentenceTransformer

    from retrieval.encoder.folder import encoder_folder

    model, passages = SentenceTransformer(str(encoder_folder("minilm"))), growth.texts()[::10]
    return per_second(lambda: model.encode(passages, batch_size=64, show_progress_bar=False), len(passages))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def first_answer(port: int, process: subprocess.Popen, start: float) -> float:
    """Seconds from `start` to the first answer of the server."""
    body = b'{"queries": ["noble gas"], "topk": 3, "return_scores": true}'
    while process.poll() is None and time.perf_counter() - start < 120:
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as link:
                link.sendall(message(body))
                if b" 200 " in link.recv(64):
                    return time.perf_counter() - start
        except ConnectionError:
            time.sleep(0.02)
    raise SystemExit("the server does not start")


def load_name(clients: int, group: int) -> str:
    """What a load is called in results and pages."""
    return f"{clients}, {group} the same"


def server(command: list[str], port: int) -> dict[str, Any]:
    """Start to first answer, and load by number of clients."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command, "--port", str(port)])
    try:
        result: dict[str, Any] = {"first": first_answer(port, process, start)}
        for clients, group in LOADS:
            arguments = map(str, (port, QUESTIONS, clients, group, SECONDS))
            load = subprocess.check_output([sys.executable, "-m", "benchmarks.search.load", *arguments])
            result[load_name(clients, group)] = json.loads(load)
        return result
    finally:
        process.terminate()
        process.wait()


def servers() -> dict[str, Any]:
    """Our server and the plain one over BM25, dense vectors and both."""
    modules = {"ours": "retrieval.serve", "plain": "benchmarks.search.plain_server"}
    kinds = {"bm25": ["bm25"], "dense": ["dense"], "hybrid": ["bm25", "dense"]}
    return {
        f"{kind} {name}": server(
            ["-m", module, "--index", *(str(INDEX / one) for one in folders)], free_port()
        )
        for kind, folders in kinds.items()
        for name, module in modules.items()
    }


def building(size: str) -> dict[str, Any]:
    """Cost of building an index of a synthetic corpus of this size."""
    return growth.measure(int(size), WORK)


def apart(name: str, *arguments: str) -> Any:
    """Run a measurement of this file in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.retrieval", "--only", name, *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result = json.loads(process.stdout.decode().splitlines()[-1])
    print(name, *arguments, json.dumps(result), flush=True)
    return result


def speed_lines() -> list[str]:
    """BM25 and encoder tables."""
    question_count, passages = len(questions()), len(growth.texts()[::10])
    rates = {name: apart(name) for name in ("bm25_ours", "bm25_pyserini", "bm25_bm25s")}
    rates |= {name: apart(name) for name in ("encoder_ours", "encoder_sentence_transformers")}
    lines = [
        f"## BM25: {question_count} questions in one batch, best {K} of 10,033 passages",
        "",
        "| | questions/s | ours is |",
        "| --- | ---: | ---: |",
    ]
    for name, label in (("ours", "ours"), ("pyserini", "pyserini LuceneSearcher"), ("bm25s", "bm25s")):
        rate = rates[f"bm25_{name}"]
        lines.append(f"| {label} | {rate:,.0f} | {rates['bm25_ours'] / rate:.2f} × |")
    ours, other = rates["encoder_ours"], rates["encoder_sentence_transformers"]
    return [
        *lines,
        "",
        f"## Encoder: MiniLM over {passages} passages, at most 256 tokens",
        "",
        "| | passages/s | ours is |",
        "| --- | ---: | ---: |",
        f"| ours | {ours:.1f} | 1.00 × |",
        f"| sentence-transformers | {other:.1f} | {ours / other:.2f} × |",
        "",
    ]


def server_lines() -> list[str]:
    """The server table."""
    measurements = apart("servers")
    lines = [
        "## Server: one query a request, each client on its own connection",
        "",
        'The trajectories of a rollout\'s group ask much the same: with "8 the same" eight clients ask the',
        "same questions in the same order.",
        "",
        "| server | start to first answer | clients | requests/s | p50 ms | p99 ms | × plain |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, figures in measurements.items():
        plain = measurements[f"{name.split()[0]} plain"]
        for load in list(plain)[1:]:
            one = figures[load]
            ratio = one["per_second"] / plain[load]["per_second"]
            lines.append(
                f"| {name} | {figures['first']:.1f} s | {load} | {one['per_second']:,.0f} |"
                f" {1000 * one['p50']:.1f} | {1000 * one['p99']:.1f} | {ratio:.2f} |"
            )
    return [*lines, ""]


def main() -> None:
    """Measure everything and write the page, or one part of it and print that."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=growth.SIZES, help="of corpora, rising")
    parser.add_argument("--only", nargs="+", metavar="PART", help="print one measurement as JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(globals()[args.only[0]](*args.only[1:])))
        return
    WORK.mkdir(parents=True, exist_ok=True)
    head = ["# Speed of retrieval", "", "Made by `python -m benchmarks.retrieval` in one run.", ""]
    lines = [*head, *speed_lines(), *server_lines()]
    costs = {size: apart("building", str(size)) for size in args.sizes}
    lines += growth.lines(costs, args.sizes)
    OUT.write_text("\n".join(lines))
    print(OUT.read_text())


if __name__ == "__main__":
    main()
