"""Where the time of a finished run went, from its logs; it must have been made in one go.

Model and search work: of a rollout stage from its first turn on, searches included; the forward and backward
passes of scoring, training and warm-up, and the optimiser's steps; building the indexes and measuring their
coverage as a whole. The rest is starting processes, the engine and the JVM, loading models, tables and
Snakemake itself.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from benchmarks.page import Row
from igpo.reporting.measured import PHASES, benchmark_seconds

PASSES = re.compile(r"(\d+) of \1 tokens, (\d+) tokens/s")  # the last line of a stage's passes
STEP = re.compile(r"optimiser's step: (\d+\.\d+) s")
SUMMARY = re.compile(r"^\w+\.\w+: .*\((\d+\.\d) s\)$", re.MULTILINE)
SEARCH = ("index", "coverage")  # stages that are search work as a whole


class Job:
    """One stage's log."""

    def __init__(self, path: Path):
        self.stage, self.text = path.stem, path.read_text()
        self.end = path.stat().st_mtime

    def seconds(self) -> float:
        """From the settings' check to the summary line; 0 without one."""
        return sum(float(found[1]) for found in SUMMARY.finditer(self.text))

    def until_end(self, line: str) -> float:
        """Seconds from the first line with this text to the end, to about a second."""
        stamp = re.search(rf"^(\d\d:\d\d:\d\d) {line}", self.text, re.MULTILINE)
        if stamp is None:
            return 0.0
        end = datetime.fromtimestamp(self.end)
        start = datetime.combine(end, datetime.strptime(stamp[1], "%H:%M:%S").time())
        return (end - start).total_seconds() % 86400  # a stage may run past midnight

    def work(self) -> float:
        """Seconds of model and search work."""
        if self.stage.partition("_")[0] in SEARCH:
            return self.seconds()
        passes = sum(int(found[1]) / int(found[2]) for found in PASSES.finditer(self.text))
        steps = sum(float(found[1]) for found in STEP.finditer(self.text))
        return passes + steps + self.until_end("turn 1 of")

    def engine_start(self) -> float:
        """Seconds from the start of the engine to the first turn."""
        return self.until_end("starting ") - self.until_end("turn 1 of")


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds in at least one of the spans (start, end): what ran side by side counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def rows(logs: Path) -> list[Row]:
    """Rows of the run that wrote `logs`. A stage's work is taken to end with the stage."""
    jobs = [Job(path) for path in sorted(logs.rglob("*.log"))]
    wall = max(job.end for job in jobs) - min(job.end - job.seconds() for job in jobs)
    work = covered((job.end - job.work(), job.end) for job in jobs)
    starts, shares, of_iterations = [], [], []
    for path in sorted(logs.glob("runs/*/*/*/rollout.log")):
        folder = logs / "benchmark" / path.parent.relative_to(logs)
        seconds = {name: benchmark_seconds(folder / f"{name}.tsv") for name in PHASES}
        starts.append(Job(path).engine_start())
        shares.append(starts[-1] / seconds["rollout"])
        of_iterations.append(starts[-1] / sum(seconds.values()))
    return [
        Row("wall time from the first stage to the last, minutes", "≤ 12", [wall / 60]),
        Row("share of it in neither model nor search work", "≤ 0.15", [1 - work / wall]),
        Row("start of the engine in an iteration, s", None, starts),
        Row("its share of the rollout stage", None, shares),
        Row("its share of the iteration", None, of_iterations),
    ]
