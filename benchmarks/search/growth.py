"""Cost of building an index by corpus size: seconds and peak memory of each stage, a process each.

The passages are synthetic; the encoder is the first layer of MiniLM with its tokenizer, so that what is
measured is everything around the encoder, whose own speed is another part of the page.
"""

import itertools
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.pages.measure import measured

SIZES = (10_000, 100_000, 1_000_000)
WIKIPEDIA = 21_000_000  # passages of the usual dump
STAGES = ("corpus", "bm25", "dense")


def texts() -> list[str]:
    """Title and text of every passage of the mini experiment."""
    table = pq.read_table("results/corpus.parquet").to_pylist()
    return [f"{row['title']}\n{row['text']}" for row in table]


def synthetic(size: int, path: Path) -> None:
    """Write `size` passages of 60 words drawn by their frequency in the real corpus."""
    counts = Counter(word for text in texts() for word in re.findall(r"\w+", text))
    draw = random.Random(size)
    words, weights = list(counts), list(itertools.accumulate(counts.values()))
    with path.open("w") as file:
        for number in range(size):
            sample = draw.choices(words, cum_weights=weights, k=60)
            row = {"id": str(number), "title": " ".join(sample[:3]), "text": " ".join(sample[3:])}
            file.write(json.dumps(row) + "\n")


def thin_encoder(folder: Path) -> None:
    """Write the encoder's tokenizer and first layer as an encoder folder."""
    from transformers import AutoModel, AutoTokenizer

    from retrieval.encoder.folder import encoder_folder

    source = encoder_folder("minilm")
    AutoModel.from_pretrained(source, num_hidden_layers=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def measure(size: int, work: Path) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of every stage for a synthetic corpus of `size` passages."""
    folder = work / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source, corpus, encoder = (str(folder / name) for name in ("corpus.jsonl", "corpus.parquet", "encoder"))
    synthetic(size, Path(source))
    thin_encoder(Path(encoder))
    params = ["--params", "params.yaml"]
    index = ["retrieval.index", *params, "--corpus", corpus]
    thin = ["--set", f"index.encoder={encoder}", "--set", "index.max_tokens=16"]
    result = {
        "corpus": measured("retrieval.corpus", *params, "--source", source, "--out", corpus),
        "bm25": measured(*index, "--kind", "bm25", "--out", str(folder / "bm25")),
        "dense": measured(*index, "--kind", "dense", *thin, "--out", str(folder / "dense")),
    }
    shutil.rmtree(folder)
    return result


def lines(measurements: dict[int, dict[str, dict[str, float]]], sizes: Sequence[int]) -> list[str]:
    """The table, and the line through its two largest sizes."""
    rows = [
        "## Building by corpus size",
        "",
        "Synthetic passages of 60 words; the encoder is one layer that reads 16 tokens.",
        "",
        "| passages | corpus s | peak GB | BM25 s | peak GB | dense s | peak GB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for size in sizes:
        cells = [f"{measurements[size][stage][unit]:.1f}" for stage in STAGES for unit in ("seconds", "peak")]
        rows.append(f"| {size:,} | {' | '.join(cells)} |")
    small, large = (sum(measurements[size][stage]["seconds"] for stage in STAGES) for size in sizes[-2:])
    hours = (large + (large - small) / (sizes[-1] - sizes[-2]) * (WIKIPEDIA - sizes[-1])) / 3600
    sentence = (
        f"On the line through the last two sizes, {WIKIPEDIA:,} passages take {hours:.1f} hours, without the"
    )
    return [*rows, "", f"{sentence} encoder.", ""]
