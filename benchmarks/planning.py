"""How long Snakemake takes to see that nothing is to be done -> docs/results/planning.md.

    python -m benchmarks.planning

On a finished tree of empty files: of the paper's experiment, 60 iterations of 6 runs, and of the default one.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import machine
from pipeline import storage
from pipeline.devices import compute_dtype

ROOT = Path(__file__).parents[1]
REPEATS = 3
SOURCES = ("wiki-18.jsonl", "encoder/config.json", "Qwen2.5-7B-Instruct/config.json")
SOURCES += tuple(f"paper_{split}.parquet" for split in ("train", "dev", "test"))
EXPERIMENTS = {"default": [], "paper": ["--configfile", str(ROOT / "experiments/paper.yaml")]}


def snakemake(folder: Path, *options: str) -> str:
    """What `snakemake` prints in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *options]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def finish(folder: Path, options: Sequence[str]) -> int:
    """Make every file of an experiment, empty, and tell Snakemake that it is made; returns how many jobs."""
    for name in SOURCES:
        path = folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    summary = snakemake(folder, *options, "--summary").splitlines()
    head, *lines = [line.split("\t") for line in summary if "\t" in line]
    place = head.index("output_file")
    for line in lines:
        path = folder / line[place]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    planned = snakemake(folder, *options, "--dry-run", "--forceall", "--quiet", "all")
    snakemake(folder, *options, "--touch", "--forceall")
    found = re.findall(r"^total\s+(\d+)", planned, re.MULTILINE)
    return int(found[-1]) if found else len(lines)


def row(name: str, options: Sequence[str]) -> str:
    """A row of the table: jobs, and seconds of a run that has nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        jobs, seconds = finish(Path(folder), options), []
        for _ in range(REPEATS):
            start = time.monotonic()
            snakemake(Path(folder), *options)
            seconds.append(time.monotonic() - start)
    return f"| {name} | {jobs:,} | {statistics.median(seconds):.1f} |\n"


def main() -> None:
    """Measure and write the page."""
    text = f"""\
# When nothing is to be done

Made by `python -m benchmarks.planning`, on finished trees of empty files (median of {REPEATS}). Made on:
{machine(compute_dtype())}.

| experiment | jobs | seconds |
| --- | ---: | ---: |
"""
    text += "".join(row(name, options) for name, options in EXPERIMENTS.items())
    with storage.replacing(Path("docs/results/planning.md")) as path:
        path.write_text(text)


if __name__ == "__main__":
    main()
