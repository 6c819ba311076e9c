"""A corpus of the paper's size: building, opening and serving it -> docs/results/wikipedia.md.

    python -m benchmarks.wikipedia --work DIR                  hours on 2 cores, about 60 GB of disk
    python -m benchmarks.wikipedia --work DIR --passages 200000

Passages are made up: 100 words each, drawn by their frequency in the mini corpus. So are the vectors: what
encoding would take is the encoder's measured rate times the passages. Every step leaves a file with what it
took, and removes what no later step needs; a run that was stopped goes on after the last one.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.pages.measure import machine, measured
from benchmarks.retrieval import LOADS, encoder_ours, free_port, load_name, server
from benchmarks.search import growth
from pipeline import sections, storage
from pipeline.devices import compute_dtype
from pipeline.settings import read_params
from retrieval.encoder.folder import encoder_folder, fingerprint
from retrieval.indexes.manifest import chosen
from retrieval.indexes.vectors import part_sizes, vectors_key

WORDS, DIMENSION, CHUNK = 100, 384, 100_000
FAISS = {"small": "IVF256,PQ64 nprobe=8", "full": "IVF16384,PQ64 nprobe=32"}
LAST_NEEDED = {"corpus": "source.parquet", "serve bm25": "bm25", "dense": "vectors", "serve dense": "dense"}


def joined(words: pa.Array, sample: np.ndarray) -> pa.Array:
    """A text for each row of `sample`, which holds places in `words`."""
    count, size = sample.shape
    rows = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * size, words.take(sample.ravel()))
    return pc.binary_join(rows, " ")


def write_source(path: Path, passages: int) -> None:
    """Write the made-up passages."""
    counts = Counter(word for text in growth.texts() for word in re.findall(r"\w+", text))
    words, weights = pa.array(list(counts)), np.array(list(counts.values()), float)
    edges, draw = np.cumsum(weights / weights.sum()), np.random.default_rng(0)
    with storage.replacing(path) as temporary, pq.ParquetWriter(temporary, storage.CORPUS) as writer:
        for low in range(0, passages, CHUNK):
            size = min(CHUNK, passages - low)
            sample = np.minimum(edges.searchsorted(draw.random((size, WORDS))), len(words) - 1)
            ids = pa.array(range(low, low + size)).cast(pa.string())
            columns = [ids, joined(words, sample[:, :3]), joined(words, sample[:, 3:])]
            writer.write_table(pa.table(columns, schema=storage.CORPUS))


def write_vectors(corpus: Path, out: Path, params: sections.Index) -> None:
    """Write made-up unit vectors in the form in which `retrieval encode` leaves real ones."""
    total = pq.read_metadata(corpus).num_rows
    settings = chosen("dense", params)
    key = vectors_key(storage.sha256(corpus), settings, fingerprint(encoder_folder(settings["encoder"])))
    out.mkdir(exist_ok=True)
    for start, size in part_sizes(range(total)).items():
        path = out / f"{start:012d}.npy"
        if not path.exists():
            vectors = np.random.default_rng(start).standard_normal((size, DIMENSION), np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            with storage.replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, vectors)
    storage.write_json({"key": key, "first": 0, "last": total}, out / "vectors.json")


def timed(name: str, words: list[str]) -> dict[str, Any]:
    """Seconds and peak memory of one of this file's own steps, in a process of its own."""
    return measured("benchmarks.wikipedia", *words, "--only", name)


def size_of(path: Path) -> float:
    """GB of a file or folder."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 1e9


def steps(work: Path, passages: int, form: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """What each step does."""
    source, corpus, vectors = work / "source.parquet", work / "corpus.parquet", work / "vectors"
    again = ["--work", str(work), "--passages", str(passages)]
    params = ["--params", "params.yaml"]
    index = ["retrieval.index", *params, "--set", f"index.faiss={form}", "--corpus", str(corpus)]

    def made(path: Path, took: dict[str, Any]) -> dict[str, Any]:
        return {**took, "gb": size_of(path)}

    def served(kind: str) -> dict[str, Any]:
        return server(["-m", "retrieval.serve", "--index", str(work / kind)], free_port())

    return {
        "encoder": lambda: {"per_second": encoder_ours()},
        "source": lambda: made(source, timed("source", again)),
        "corpus": lambda: made(
            corpus, measured("retrieval.corpus", *params, "--source", str(source), "--out", str(corpus))
        ),
        "bm25": lambda: made(work / "bm25", measured(*index, "--kind", "bm25", "--out", str(work / "bm25"))),
        "serve bm25": lambda: served("bm25"),
        "vectors": lambda: made(vectors, timed("vectors", again)),
        "dense": lambda: made(
            work / "dense",
            measured(*index, "--kind", "dense", "--vectors", str(vectors), "--out", str(work / "dense")),
        ),
        "serve dense": lambda: served("dense"),
    }


def page(results: dict[str, dict[str, Any]], passages: int, form: str) -> str:
    """The page."""
    rate, rows, loads = results["encoder"]["per_second"], [], []
    for name in ("corpus", "bm25", "dense"):
        took = results[name]
        rows.append(f"| {name} | {took['seconds'] / 60:,.1f} | {took['peak']:.1f} | {took['gb']:.1f} |")
    for name in ("serve bm25", "serve dense"):
        for clients, group in LOADS:
            load = load_name(clients, group)
            took = results[name][load]
            cells = [name.removeprefix("serve "), f"{results[name]['first']:.1f}", load]
            loads.append(f"| {' | '.join(cells)} | {took['per_second']:,.0f} | {1000 * took['p99']:,.0f} |")
    return "\n".join(
        [
            f"# {passages:,} passages",
            "",
            f"Made up: {WORDS} words each, drawn by their frequency in the mini corpus, with made-up vectors",
            f"of {DIMENSION} numbers in a FAISS index `{form}`. MiniLM encodes {rate:.0f} passages of the",
            f"mini corpus a second, at most 256 tokens of each: {passages / rate / 3600:,.1f} hours for all.",
            "",
            f"Made by `python -m benchmarks.wikipedia --work DIR --passages {passages}`. Made on:",
            f"{machine(compute_dtype())}.",
            "",
            "| | minutes | peak memory, GB | disk, GB |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
            "| served | first answer, s | clients, of them the same | queries/s | p99, ms |",
            "| --- | ---: | --- | ---: | ---: |",
            *loads,
            "",
        ]
    )


def make(work: Path, passages: int, form: str) -> None:
    """Make what is missing, and the page."""
    work.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, step in steps(work, passages, form).items():
        file = work / f"{name.replace(' ', '_')}.json"
        if not file.exists():
            storage.write_json(step(), file)
        results[name] = storage.read_json(file)
        print(name, json.dumps(results[name]), flush=True)
        if name in LAST_NEEDED:
            storage.remove(work / LAST_NEEDED[name])
    with storage.replacing(Path("docs/results/wikipedia.md")) as path:
        path.write_text(page(results, passages, form))


def main() -> None:
    """The whole, or one of its own steps."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--passages", type=int, default=growth.WIKIPEDIA, metavar="N")
    parser.add_argument("--only", choices=("source", "vectors"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    faiss = FAISS["full" if args.passages > 1_000_000 else "small"]
    if args.only == "source":
        write_source(args.work / "source.parquet", args.passages)
    elif args.only == "vectors":
        params = read_params([Path("params.yaml")])["index"] | {"faiss": faiss}
        write_vectors(args.work / "corpus.parquet", args.work / "vectors", sections.Index(**params))
    else:
        make(args.work, args.passages, faiss)


if __name__ == "__main__":
    main()
