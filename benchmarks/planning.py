"""How long Snakemake takes to see that nothing is to be done -> docs/results/planning.md.

    python -m benchmarks.planning --work DIR

On finished trees of empty files in DIR: of the default experiment, of the paper's 60 iterations of 6 runs
with one shard, and of the same with its eight. Making them takes half an hour; those that are there are
kept, so a second time it only measures.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pages.measure import machine
from pipeline import storage
from pipeline.devices import compute_dtype
from pipeline.errors import UserError

ROOT = Path(__file__).parents[1]
REPEATS = 3
SOURCES = ("wiki-18.jsonl", "encoder/config.json", "Qwen2.5-7B-Instruct/config.json")
SOURCES += tuple(f"paper_{split}.parquet" for split in ("train", "dev", "test"))
PAPER = ["--configfile", str(ROOT / "experiments/paper.yaml")]
EXPERIMENTS = {
    "default": [],
    "paper, one shard": [*PAPER, "--config", "rollout={shards: 1}", "score={shards: 1}"],
    "paper, eight shards": PAPER,
}


def snakemake(folder: Path, *options: str) -> str:
    """What `snakemake` prints in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *options]
    return subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


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
    plan = snakemake(folder, *options, "--dry-run", "--forceall", "--quiet", "all")
    snakemake(folder, *options, "--touch", "--forceall")
    totals = re.findall(r"^total\s+(\d+)", plan, re.MULTILINE)
    return int(totals[-1]) if totals else len(lines)


def tree(folder: Path, options: Sequence[str]) -> int:
    """Finish an experiment's tree unless it is there; returns how many jobs it has."""
    file = folder / "jobs.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_json(finish(folder, options), file)
    return int(storage.read_json(file))


def seconds(folder: Path, options: Sequence[str]) -> float:
    """Seconds of planning a run that has nothing to do. Raises UserError if it has: the code has changed."""
    times = []
    for _ in range(REPEATS):
        start = time.monotonic()
        output = snakemake(folder, *options, "--dry-run")
        times.append(time.monotonic() - start)
        if "Nothing to be done" not in output:
            raise UserError(f"{folder}: made by other code; remove it, and it is made again")
    return statistics.median(times)


def main() -> None:
    """Make what is missing, measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    trees = {
        name: (args.work / str(place), options) for place, (name, options) in enumerate(EXPERIMENTS.items())
    }
    jobs = {name: tree(*arguments) for name, arguments in trees.items()}
    text = f"""\
# When nothing is to be done

Made by `python -m benchmarks.planning --work DIR`, on finished trees of empty files
(median of {REPEATS}). Made on: {machine(compute_dtype())}.

| experiment | jobs | seconds |
| --- | ---: | ---: |
"""
    for name, arguments in trees.items():
        text += f"| {name} | {jobs[name]:,} | {seconds(*arguments):.1f} |\n"
    with storage.replacing(Path("docs/results/planning.md")) as path:
        path.write_text(text)


if __name__ == "__main__":
    main()
