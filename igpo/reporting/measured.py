"""What earlier runs tell about cost: `results/` and `logs/` -> tokens per second, weights, bytes.

Tokens are those of trajectories (prompt, sampled, observed), seconds those of a whole stage, its start
included, from Snakemake's benchmark files; what it ran on stands in its log.
"""

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open

from igpo.experiment import schema
from pipeline import storage

PHASES = ("rollout", "score", "train")
MEASURED = (*PHASES, "critic")


class Speed(NamedTuple):
    """Tokens per second of a stage on a device such as `2 CPU cores` or `8 x NVIDIA H200`; "" is unknown."""

    tokens: float
    device: str

    @property
    def gpus(self) -> int:
        """GPUs that the stage ran on; 1 where it was none."""
        found = re.match(r"(\d+) x ", self.device)
        return int(found[1]) if found else 1


def benchmark_seconds(path: Path) -> float:
    """Wall seconds of a job from its benchmark file."""
    heads, values = (line.split("\t") for line in path.read_text().splitlines()[:2])
    return float(dict(zip(heads, values, strict=True))["s"])


def tokens_in(rollouts: Path) -> int:
    """Tokens of all trajectories of a rollout file."""
    table = storage.read(rollouts, schema.ROLLOUTS)
    columns = (table["policy_ids"], table["observation_ids"])
    return sum(pc.sum(pc.list_value_length(column)).as_py() for column in columns)


def device_in(log: Path) -> str:
    """What a stage's log says that it ran on (`model.device`); "" where it doesn't."""
    found = re.search(r" loaded .+ on (.+)$", log.read_text(), re.MULTILINE) if log.exists() else None
    return found[1] if found else ""


def joined(devices: Iterable[str]) -> str:
    """The devices that are known, each once."""
    return " or ".join(sorted(set(devices) - {""}))


def speeds(root: Path) -> dict[str, Speed]:
    """The median speed of each stage in training; empty where nothing ran."""
    found: dict[str, list[Speed]] = {}
    for path in sorted((root / "logs/benchmark/runs").glob("*/s*/*/*.tsv")):
        place = Path("runs", *path.parts[-4:-1])
        rollouts = root / "results" / place / "rollouts.parquet"
        if path.stem in MEASURED and rollouts.exists():
            device = device_in(root / "logs" / place / f"{path.stem}.log")
            found.setdefault(path.stem, []).append(
                Speed(tokens_in(rollouts) / benchmark_seconds(path), device)
            )
    return {
        name: Speed(
            statistics.median(speed.tokens for speed in listed),
            joined(speed.device for speed in listed),
        )
        for name, listed in found.items()
    }


def weights_in(folder: Path) -> int:
    """Number of weights in a model folder; 0 where there is none."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def passage_bytes(root: Path, index: Mapping[str, Any]) -> dict[str, float]:
    """Bytes a passage of the corpus and of each index in `results/`.

    Of a dense one only with the encoder and the FAISS index of section `index`, which decide its size.
    """
    found = {}
    corpus = root / "results/corpus.parquet"
    if corpus.exists():
        found["corpus"] = corpus.stat().st_size / pq.read_metadata(corpus).num_rows
    for path in sorted((root / "results/index").glob("*/manifest.json")):
        made = storage.read_json(path)
        if all(made["settings"].get(name, index[name]) == index[name] for name in ("encoder", "faiss")):
            found[f"index {made['kind']}"] = sum(made["files"].values()) / made["rows"]
    return found


def token_bytes(root: Path) -> float | None:
    """Bytes of an iteration's tables a token of its trajectories; None where nothing ran."""
    size = tokens = 0
    for path in sorted((root / "results/runs").glob("*/s*/*/rollouts.parquet")):
        size += sum(table.stat().st_size for table in path.parent.glob("*.parquet"))
        tokens += tokens_in(path)
    return size / tokens if tokens else None
