"""A training pass alone and beside a busy process, by how OpenMP's threads wait -> docs/results/beside.md.

    python -m benchmarks.beside            on a machine where nothing else runs

At every barrier the threads of a product wait for the last one. A thread that spins meanwhile holds a core
that the last one may need. Each setting is a process of its own, in rounds: the settings one after another,
each alone and beside a process that keeps a core busy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.method import update
from benchmarks.method.workload import Shape, rollouts
from benchmarks.pages.measure import machine
from igpo import train
from igpo.experiment.policy import load, load_tokenizer
from pipeline import storage
from pipeline.devices import compute_dtype

SETTINGS: dict[str, dict[str, str]] = {
    "spin as libgomp does": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
SHAPE = Shape((2,), prompt=300, policy=60, observation=100)
BUSY = "while True: pass"
WHERE = Path("results/models/base")


def speed(policy: Path, passes: int) -> float:
    """Tokens per second of gradients of one trajectory, after one that is not counted."""
    tokenizer = load_tokenizer(policy)
    model = load(policy, torch.float32, "tree").train()
    batch, _ = update.training_groups(model, rollouts(SHAPE, tokenizer), tokenizer)
    tokens = sum(len(segment.ids) for group in batch for segment in group.segments)
    train.accumulate(model, batch, update.PARAMS)
    start = time.perf_counter()
    for _ in range(passes):
        train.accumulate(model, batch, update.PARAMS)
    return passes * tokens / (time.perf_counter() - start)


def measured(setting: dict[str, str], beside: bool, passes: int) -> float:
    """The speed under a setting, in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    busy = subprocess.Popen([sys.executable, "-c", BUSY]) if beside else None
    command = [sys.executable, "-m", "benchmarks.beside", "--measure", str(passes)]
    try:
        process = subprocess.run(
            command, env=environment | setting, check=True, capture_output=True, text=True
        )
    finally:
        if busy:
            busy.kill()
    return float(process.stdout)


def page(alone: dict[str, list[float]], beside: dict[str, list[float]], passes: int) -> str:
    """The page; `passes`: how many of them one speed alone is of."""
    best = max(statistics.median(values) for values in alone.values())
    lines, rounds = [], len(next(iter(alone.values())))
    for name in alone:
        alone_speed, beside_speed = statistics.median(alone[name]), statistics.median(beside[name])
        cells = [
            f"{alone_speed:.0f}",
            f"{beside_speed:.0f}",
            f"{best / alone_speed:.2f}",
            f"{best / beside_speed:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    return f"""\
# Beside a busy process

Tokens per second of training passes (forward and backward) of the default model: of {passes} passes alone, of
one while another process keeps a core busy, each after one that is not counted. Median of {rounds} rounds.
Times slower are against the fastest alone.

Made by `python -m benchmarks.beside`. Made on: {machine(compute_dtype())}.

| threads wait by | alone | beside one | alone, times slower | beside one, times slower |
| --- | ---: | ---: | ---: | ---: |
{"".join(lines)}"""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", type=int, metavar="PASSES", help="of this process alone, printed")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--passes", type=int, default=8, metavar="N", help="alone; beside a busy process one")
    args = parser.parse_args()
    if args.measure:
        print(speed(WHERE, args.measure))
        return
    speeds: dict[bool, dict[str, list[float]]] = {False: {}, True: {}}
    for number in range(args.rounds):
        for name, setting in list(SETTINGS.items())[:: -1 if number % 2 else 1]:
            for beside in (False, True):
                value = measured(setting, beside, 1 if beside else args.passes)
                speeds[beside].setdefault(name, []).append(value)
                print(
                    f"round {number + 1}: {name}, {'beside one' if beside else 'alone'}: {value:.1f}",
                    flush=True,
                )
    order = list(SETTINGS)
    alone, beside_one = ({name: values[name] for name in order} for values in speeds.values())
    with storage.replacing(Path("docs/results/beside.md")) as path:
        path.write_text(page(alone, beside_one, args.passes))


if __name__ == "__main__":
    main()
