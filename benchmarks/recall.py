"""Recall of every retriever on the closed benchmarks -> docs/results/retrieval.md.

    pip install --no-deps -r requirements/benchmarks.txt
    python -m benchmarks.recall --data DIR

`--data` holds `NAME_corpus.jsonl` and `NAME_{split}.parquet` for each closed benchmark. Indexes are kept in
results/benchmarks and used again. Reference: bm25s with English stop words over title + text.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bm25s

from benchmarks.pages.measure import machine
from igpo.data.question_forms import load
from pipeline import storage
from pipeline.devices import compute_dtype
from pipeline.settings import read_params
from retrieval import coverage
from retrieval.indexes.hits import Hit
from retrieval.indexes.passages import Passages
from retrieval.indexes.searcher import open_searcher

BENCHMARKS = ("hotpotqa_closed", "musique_closed", "popqa_closed")
INDEX = read_params([Path("params.yaml")])["index"] | {"max_tokens": 256}
CUTS = ("3", "10")
PAGE = """\
# Recall on closed benchmarks

Made by `python -m benchmarks.recall --data DIR`. Made on: {machine}.

Per cent of test questions: mean share of gold passages
found / all gold passages found / an answer in the passages, among the best 3 and the best 10. BM25 is
Lucene's with k1 {k1}, b {b}; dense is the embedded {encoder} at {max_tokens} tokens, flat; hybrid is the
reciprocal-rank fusion of both. bm25s (English stop words, its own defaults) is there as a reference.

"""


class Bm25s:
    """bm25s behind `search(queries, k)`, over the passages of an index."""

    def __init__(self, passages: Passages):
        self.passages = passages
        texts = [f"{title} {text}" for _, title, text in passages]
        self.index = bm25s.BM25()
        self.index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        """The best `k` of each query."""
        tokens = bm25s.tokenize(queries, stopwords="en", show_progress=False)
        rows, scores = self.index.retrieve(tokens, k=k, show_progress=False)
        return [
            [Hit(*self.passages.row(int(row)), float(score)) for row, score in zip(*pair, strict=True)]
            for pair in zip(rows, scores, strict=True)
        ]


def run(*words: object) -> None:
    """Run a retrieval stage; its error ends this program."""
    if subprocess.run([sys.executable, "-m", *map(str, words)]).returncode:
        raise SystemExit(2)


def build(data: Path, name: str, work: Path) -> dict[str, Path]:
    """The index folders of a benchmark's corpus; those that are there stay."""
    folders = {kind: work / name / kind for kind in ("bm25", "dense")}
    corpus = work / name / "corpus.parquet"
    if not corpus.exists():
        source = str(data / f"{name}_corpus.jsonl")
        run("retrieval.corpus", "--config", json.dumps({"source": source}), "--out", corpus)
    for kind, folder in folders.items():
        if not folder.exists():
            config = json.dumps(INDEX)
            run("retrieval.index", "--config", config, "--corpus", corpus, "--kind", kind, "--out", folder)
    return folders


def figures(summary: dict[str, Any]) -> str:
    """The cells of one retriever."""
    rows = ("gold_at", "all_gold_at", "answer_at")
    return " | ".join(" / ".join(f"{100 * summary[row][cut]:.1f}" for row in rows) for cut in CUTS)


def measured(data: Path, name: str, work: Path) -> list[str]:
    """The lines of one benchmark."""
    folders = build(data, name, work)
    questions = load(data / f"{name}_test.parquet")
    questions.sort(key=lambda row: row["question_id"])
    searchers: dict[str, Any] = {kind: open_searcher([folder]) for kind, folder in folders.items()}
    searchers |= {"hybrid": open_searcher(list(folders.values())), "bm25s": Bm25s(searchers["bm25"].passages)}
    lines = []
    for kind, searcher in searchers.items():
        (summary,) = coverage.audit(searcher, questions)["benchmarks"].values()
        lines.append(f"| {name} | {kind} | {summary['n']} | {figures(summary)} |")
    return lines


def main() -> None:
    """Measure all, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("docs/results/retrieval.md"), metavar="FILE")
    args = parser.parse_args()
    lines = ["| benchmark | retriever | questions | @3 | @10 |", "| --- | --- | ---: | ---: | ---: |"]
    for name in BENCHMARKS:
        lines += measured(args.data, name, Path("results/benchmarks"))
        print("\n".join(lines[-4:]), flush=True)
    with storage.replacing(args.out) as path:
        path.write_text(PAGE.format(machine=machine(compute_dtype()), **INDEX) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
