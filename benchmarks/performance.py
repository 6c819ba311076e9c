"""What the method costs, beside plain ways to do the same, in one run -> docs/results/performance.md.

    python -m benchmarks.performance --part scoring training

A part's measurements alternate; its rows go to results/benchmarks/<part>.json, and the page shows every part
that was measured. All of it runs with the pipeline's settings of the allocator. Timed on an otherwise idle
machine.
"""

import argparse
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.method import iteration
from benchmarks.method.scoring import cost, scoring
from benchmarks.method.sizes import SIZES, Size
from benchmarks.method.training import training
from benchmarks.pages import finished_run, page
from benchmarks.pages.measure import Load, alternate, machine, matmul, matmul_flops, measured
from igpo import model as model_stage
from igpo.experiment.policy import load
from igpo.training.memory import MALLOC
from pipeline import stage, storage
from pipeline.devices import compute_dtype

WORK = Path("results/benchmarks")


def memory(folder: Path, size: Size) -> list[page.Row]:
    """Peak memory at 4,096 tokens per trajectory, each in a process of its own."""
    rows = []
    for work in ("scoring", "training"):
        for group in size.memory_groups:
            words = ["--model", str(folder), "--work", work, "--group", str(group)]
            usage = measured("benchmarks.method.memory", *words)
            how = " with checkpointing" if work == "training" else ""
            what = f"peak memory of {work}{how}, 4,096 tokens per trajectory, group of {group}, GB"
            rows.append(page.Row(what, "≤ 4", [usage["peak"]]))
    return rows


def run(folder: Path, size: Size) -> list[page.Row]:
    """Where the time of the run in results/ went."""
    model = load(folder, torch.float32, "tree")
    product = matmul(compute_dtype(), model.device)
    peak = matmul_flops() / min(alternate({"matmul": product}, size.repeats)["matmul"])
    return finished_run.rows(Path("results"), model.num_parameters(), peak)


PARTS = {
    "scoring": scoring,
    "training": training,
    "rollouts": lambda _folder, size: iteration.rollout_rows(size),
    "iteration": lambda _folder, size: iteration.iteration_rows(size),
    "cost": cost,
    "memory": memory,
    "run": run,
}


def main() -> None:
    """Measure the parts and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--out", type=Path, default=Path("docs/results/performance.md"), metavar="FILE")
    args = parser.parse_args()
    if not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | MALLOC)  # glibc reads them once, at the start
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stage.log.setLevel(logging.INFO)
    folder = WORK / "model"
    if not (folder / "policy.json").exists():
        model_stage.main(["--config", '{"source": "smollm2"}', "--out", str(folder)])
    for name in args.part:
        load_seen = Load()
        rows = PARTS[name](folder, SIZES[args.size])
        content = {
            "rows": [asdict(row) for row in rows],
            "repeats": SIZES[args.size].repeats,
            "machine": machine(compute_dtype()),
            "load": load_seen.since(),
        }
        storage.write_json(content, WORK / args.size / f"{name}.json")
        print(f"{page.shown(rows)}\n{content['load']}", flush=True)
    page.write(WORK / args.size, list(PARTS), args.out)


if __name__ == "__main__":
    main()
