"""What earlier runs tell about cost: `results/` -> tokens per second, weights, bytes.

Tokens are those of trajectories (prompt, sampled, observed), seconds those of a whole stage, its start
included (`pipeline.cost`).
"""

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from safetensors import safe_open

from pipeline import cost, storage

PHASES = ("rollout", "score", "train")
ALL_PHASES = (*PHASES, "critic")


class Speed(NamedTuple):
    """Tokens per second of a stage on a device such as `2 CPU cores` or `8 x NVIDIA H200`; "" is unknown."""

    tokens: float
    device: str

    @property
    def gpus(self) -> int:
        """GPUs that the stage ran on; 1 if it was none."""
        match = re.match(r"(\d+) x ", self.device)
        return int(match[1]) if match else 1


def cost_path(iteration: Path, phase: str) -> Path:
    """Where the cost of a phase of an iteration stands."""
    return cost.path(iteration / "critic" if phase == "critic" else iteration / "policy.json", phase)


def device_names(devices: Iterable[str]) -> str:
    """The devices that are known, each once."""
    return " or ".join(sorted(set(devices) - {""}))


def speeds(root: Path) -> dict[str, Speed]:
    """The median speed of each stage in training; empty if nothing ran."""
    result: dict[str, list[Speed]] = {}
    for folder in sorted((root / "results/runs").glob("*/s*/*")):
        for phase in ALL_PHASES:
            path = cost_path(folder, phase)
            if path.exists():
                job = storage.read_json(path)
                speed = Speed(job["tokens"] / job["seconds"], job["device"] or "")
                result.setdefault(phase, []).append(speed)
    return {
        name: Speed(
            statistics.median(speed.tokens for speed in own),
            device_names(speed.device for speed in own),
        )
        for name, own in result.items()
    }


def weights_in(folder: Path) -> int:
    """Number of weights in a model folder; 0 if there is none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def passage_bytes(root: Path, index: Mapping[str, Any]) -> dict[str, float]:
    """Bytes a passage of the corpus and of each index in `results/`.

    Of a dense one only with the encoder and the FAISS index of section `index`, which decide its size.
    """
    sizes = {}
    corpus = root / "results/corpus.parquet"
    if corpus.exists():
        sizes["corpus"] = corpus.stat().st_size / pq.read_metadata(corpus).num_rows
    for path in sorted((root / "results/index").glob("*/manifest.json")):
        manifest = storage.read_json(path)
        if all(manifest["settings"].get(name, index[name]) == index[name] for name in ("encoder", "faiss")):
            sizes[f"index {manifest['kind']}"] = sum(manifest["files"].values()) / manifest["rows"]
    return sizes


def token_bytes(root: Path) -> float | None:
    """Size of an iteration's tables in bytes per token of its trajectories; None if nothing ran."""
    size = tokens = 0
    for path in sorted((root / "results/runs").glob("*/s*/*/rollout.cost.json")):
        size += sum(table.stat().st_size for table in path.parent.glob("*.parquet"))
        tokens += storage.read_json(path)["tokens"]
    return size / tokens if tokens else None
