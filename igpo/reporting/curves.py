"""Iterations -> rows of learning curves."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from igpo.experiment import schema
from igpo.reporting.results import FURTHER, METRICS, mean, settings
from igpo.reporting.validation import run_of, with_dev
from pipeline import storage


def curve_row(folder: Path) -> dict[str, Any]:
    """Metrics of one iteration, of the policy that acted in it, from `runs/<arm>/s<seed>/<kkk>`.

    `policy_sha256` is that policy's; `step_reward` is the mean of what the arm rewards search turns by.
    """
    arm, seed, k = run_of(folder)
    metrics = storage.read_json(folder / "metrics.json")
    overall = metrics["overall"]
    scores = storage.read(folder / "scores.parquet", schema.SCORES)
    row = {"arm": arm, "seed": int(seed), "iteration": int(k), "n": overall["n"]}
    row |= {"policy_sha256": metrics["provenance"].get("policy"), **settings([metrics["provenance"]])}
    row |= {metric: mean(overall, metric) for metric in (*METRICS, *FURTHER)}
    row |= {
        "reward": pc.mean(scores["outcome"]).as_py(),
        "step_reward": pc.mean(scores["step_reward"]).as_py(),
    }
    for manifest in (folder / "policy.json", folder / "critic/policy.json"):
        row |= storage.read_json(manifest)["metrics"] if manifest.exists() else {}
    health = storage.read_json(folder / "health.json")
    return row | health | {"warnings": " | ".join(health["warnings"])}


def curve_rows(iterations: Sequence[Path], validations: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """The rows of all iterations, and what `validations` say of their policies (`validation.with_dev`)."""
    return with_dev([curve_row(folder) for folder in iterations], validations)
