"""What a stage costs: STAGE.cost.json beside its output.

    began, ended   time of the process's start and of the end, seconds since 1970
    seconds        between them
    phases         seconds by name; what is in none of them is starts, loading and tables
    tokens         of the trajectories that a stage is about; null if it is about none
    device         what its model ran on, as in "2 CPU cores"; null without a model
    threads        of torch; null if the stage doesn't import it
    peak_bytes     memory at most, of the process or of its largest child
    clock          of rollouts alone, and of their first trajectories: question, sample, of every turn when
                   it was asked for, when it was generated and, if it called a tool, when that had answered

`plan`, the tables of time and the benchmarks read it. It is the one output that is never the same twice.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline import storage

_notes: dict[str, Any] = {}
_phases: dict[str, float] = {}


def note(**values: Any) -> None:
    """Note `tokens`, `device` or `clock`."""
    _notes.update(values)


def add(phase: str, seconds: float) -> None:
    """Count seconds to a phase."""
    _phases[phase] = _phases.get(phase, 0.0) + seconds


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time of a block to a phase."""
    start = time.monotonic()
    try:
        yield
    finally:
        add(name, time.monotonic() - start)


def begin() -> None:
    """Forget what an earlier stage of this process noted."""
    _notes.clear()
    _phases.clear()


def path(out: Path, stage: str) -> Path:
    """Where the cost of the stage that wrote the file or folder `out` stands."""
    return (out if out.is_dir() else out.parent) / f"{stage}.cost.json"


def write(out: Path, stage: str) -> None:
    """Write what the stage of this process cost."""
    start, end = psutil.Process().create_time(), time.time()
    peak_kib = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    torch = sys.modules.get("torch")
    values: dict[str, Any] = {"tokens": None, "device": None, **_notes}
    values |= {"began": start, "ended": end, "seconds": end - start, "phases": _phases}
    values |= {"threads": torch.get_num_threads() if torch else None, "peak_bytes": peak_kib * 1024}
    storage.write_json(values, path(out, stage))
