"""Where the time of a finished run went, from the costs of its stages; it must have been made in one go.

Model and search work: a rollout's turns, searches included; the forward and backward passes of scoring,
training and warm-up, and the optimiser's steps; building the indexes and measuring their coverage as a whole.
The rest is starting processes, the engine and the JVM, loading models, tables and Snakemake itself.

How fast the run could be: a token takes at least 2 operations a weight in a pass forward, and 6 with the pass
backward, at no more than the rate of a large matrix product.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages.page import Row
from igpo.reporting.measured import PHASES, cost_path
from pipeline import storage

WORK = ("turns", "passes", "optimiser")  # phases that are model and search work
OPERATIONS = {"score": 2, "train": 6}  # per weight and token, by stage
SEARCH = ("index.cost.json", "coverage.cost.json")  # stages that are search work as a whole
Span = tuple[float, float]  # began, ended


def work(path: Path, cost: Mapping[str, Any]) -> Span:
    """Model and search work of a stage, taken to end with the stage."""
    phases = sum(cost["phases"].get(name, 0.0) for name in WORK)
    return cost["ended"] - (cost["seconds"] if path.name in SEARCH else phases), cost["ended"]


def wall(spans: Iterable[Span]) -> float:
    """Seconds from the first one's begin to the last one's end."""
    begins, ends = zip(*spans, strict=True)
    return max(ends) - min(begins)


def covered(spans: Iterable[Span]) -> float:
    """Seconds in at least one of the spans: what ran side by side counts once."""
    total, latest = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, latest))
        latest = max(latest, end)
    return total


def beyond(path: Path, cost: Mapping[str, Any], weights: int, peak: float) -> float:
    """Seconds of a stage's passes beyond those at `peak` operations a second; 0 for stages without any."""
    operations = OPERATIONS.get(path.name.partition(".")[0], 0) * weights * (cost["tokens"] or 0)
    return cost["phases"]["passes"] - operations / peak if operations else 0.0


def rows(results: Path, weights: int, peak: float) -> list[Row]:
    """Rows of the run of a model with so many weights that made the folder `results`."""
    paths = sorted(set(results.rglob("*.cost.json")) - set(results.glob("benchmarks/**/*.cost.json")))
    costs = {path: storage.read_json(path) for path in paths}
    wall_seconds = wall((cost["began"], cost["ended"]) for cost in costs.values())
    work_seconds = covered(work(*item) for item in costs.items())
    saved = sum(beyond(*item, weights, peak) for item in costs.items())
    starts, shares, of_iterations = [], [], []
    for folder in sorted(path.parent for path in costs if path.match("runs/*/*/[0-9]*/rollout.cost.json")):
        seconds = {name: costs[cost_path(folder, name)]["seconds"] for name in PHASES}
        starts.append(costs[cost_path(folder, "rollout")]["phases"]["engine"])
        shares.append(starts[-1] / seconds["rollout"])
        of_iterations.append(starts[-1] / sum(seconds.values()))
    return [
        Row("wall time from the first stage to the last, minutes", "≤ 15", [wall_seconds / 60]),
        Row(
            "the same if all passes of scoring and training ran at the matmul peak",
            None,
            [(wall_seconds - saved) / 60],
        ),
        Row("share of it in neither model nor search work", "≤ 0.15", [1 - work_seconds / wall_seconds]),
        Row("start of the engine in an iteration, s", None, starts),
        Row("its share of the rollout stage", None, shares),
        Row("its share of the iteration", None, of_iterations),
    ]
