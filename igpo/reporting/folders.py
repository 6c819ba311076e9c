"""Folders of rollouts: whose they are, and their trajectories with all that is known of each turn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igpo.credit import answer_metrics
from igpo.experiment import schema
from igpo.reporting.validation import run_of
from pipeline import storage

TABLES = {"scores": schema.SCORES, "advantages": schema.ADVANTAGES}
WORTH = {"gold": "gold_logprob", "gain": "info_gain", "reward": "step_reward", "advantage": "advantage"}


def source(folder: Path) -> dict[str, Any]:
    """Whose trajectories a folder of rollouts holds."""
    place = folder.absolute()
    if place.parent.name == "evaluations" or place.parent.parent.name == "evaluations":
        return {"kind": "evaluation", "arm": place.name, "seed": None, "iteration": None}
    kind = "validation" if place.name == "validation" else "training"
    iteration = place.parent if kind == "validation" else place
    if iteration.name == "warmup":
        return {"kind": kind, "arm": "warm start", "seed": None, "iteration": 0}
    arm, seed, k = run_of(iteration)
    return {"kind": kind, "arm": arm, "seed": int(seed), "iteration": int(k)}


def trajectories(folder: Path) -> list[schema.Rows]:
    """The trajectories of a folder, with scores and advantages if it has them."""
    rollouts = storage.read(folder / "rollouts.parquet", schema.ROLLOUTS).to_pylist()
    paths = {name: folder / f"{name}.parquet" for name in TABLES}
    files = {name: path for name, path in paths.items() if path.exists()}
    tables = {name: storage.read(path, TABLES[name]).to_pylist() for name, path in files.items()}
    return schema.joined(rollouts, **tables)


def found(rows: schema.Rows, question: Mapping[str, Any]) -> int:
    """How many of a question's supporting passages a trajectory was shown."""
    return len(schema.passages_shown(rows) & set(question["supporting_ids"]))


def f1(rows: schema.Rows, question: Mapping[str, Any]) -> float:
    """F1 of a trajectory's answer; 0 without one."""
    answer = rows[-1]["answer"]
    return 0.0 if answer is None else answer_metrics.f1(answer, question["answers"])
