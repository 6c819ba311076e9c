"""What workflow/forked.py saves over the run in results/ -> docs/results/forked.md.

    python -m benchmarks.forked        after the default experiment

A stage that runs plainly imports torch, transformers and vLLM; one that is forked has them. Counted are the
stages of that run that had a model.
"""

import fcntl
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.pages.measure import machine
from pipeline import storage
from pipeline.devices import compute_dtype
from workflow import forked

ROOT = Path(__file__).parents[1]
REPEATS = 5
OUT = Path("docs/results/forked.md")
IMPORTS = f"import importlib; [importlib.import_module(name) for name in {forked.PRELOADED!r}]"
STAGE = ["igpo.show", "--help"]  # next to no work of its own


def seconds(command: list[str], folder: str) -> float:
    """Wall time of a command."""
    start = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def measured() -> tuple[float, float]:
    """Median seconds of a stage's imports in a process of its own, and of a forked stage without any work."""
    os.environ["PYTHONPATH"] = str(ROOT)
    fork = [sys.executable, str(ROOT / "workflow/forked.py"), *STAGE]
    with tempfile.TemporaryDirectory() as folder:
        plain = [seconds([sys.executable, "-c", IMPORTS], folder) for _ in range(REPEATS)]
        home = Path(folder, forked.HOME)
        home.mkdir()
        with (home / "alive").open("w") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH)
            seconds(fork, folder)  # starts the server
            while not Path(folder, forked.ADDRESS).exists():
                time.sleep(0.1)
            quick = [seconds(fork, folder) for _ in range(REPEATS)]
    return statistics.median(plain), statistics.median(quick)


def main() -> None:
    """Measure and write the page."""
    costs = [storage.read_json(path) for path in sorted(Path("results").rglob("*.cost.json"))]
    stages = sum(cost["device"] is not None for cost in costs)
    if not stages:
        raise SystemExit("error: results/ has no stage with a model; run the default experiment first")
    plain, quick = measured()
    text = f"""\
# What forking stages saves

Made by `python -m benchmarks.forked` after the default run. Made on: {machine(compute_dtype())}.

| | seconds |
| --- | ---: |
| imports of a stage with a model, in a process of its own (median of {REPEATS}) | {plain:.1f} |
| a forked stage without any work (median of {REPEATS}) | {quick:.1f} |
| saved over the run: {stages} stages with a model, the first plain | {(stages - 1) * (plain - quick):.0f} |
"""
    with storage.replacing(OUT) as path:
        path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
