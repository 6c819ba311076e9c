"""What of an experiment is finished, runs, or failed; `snakemake -n` says what would run and why.

By the files in results/, and by what a run that goes on notes in .snakemake/.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from igpo.experiment import checks, layout, schema
from igpo.reporting.measured import PHASES, cost_path
from igpo.reporting.trajectory_text import visible
from pipeline import stage, storage
from pipeline.locks import is_held

STEPS = ("rollouts.parquet", "scores.parquet", "advantages.parquet", "policy.json")


def steps(params: Mapping[str, Any], root: Path) -> Iterator[tuple[str, int, int, str]]:
    """(name, files there, files in all, what comes next) of every part of the experiment below `root`."""
    run = params["run"]
    common = {
        "corpus": ["corpus.parquet"],
        "indexes": [f"index/{kind}/manifest.json" for kind in params["index"]["kinds"]],
        "base model": ["models/base/policy.json"],
        "questions": [f"questions/{split}.parquet" for split in schema.SPLITS],
        "warm start": ["warmup/policy.json"],
    }
    for name, files in common.items():
        yield _count(name, [root / "results" / file for file in files])
    for arm in run["arms"]:
        for seed in run["seeds"]:
            folders = layout.run_iterations(run, arm, seed)
            yield _count(f"{arm} s{seed}", [root / folder / step for folder in folders for step in STEPS])
    if validations := layout.validations(params):
        yield _count("validations", [root / folder / "metrics.json" for folder in validations])
    evaluations = [root / f"results/evaluations/{name}/metrics.json" for name in layout.evaluations(run)]
    yield _count("evaluations", evaluations)
    yield _count("tables, page", [root / "results/tables/main.md", root / "results/report.html"])
    yield _count("MLflow", [root / "results/track.json"])


def _count(name: str, files: list[Path]) -> tuple[str, int, int, str]:
    missing = [file for file in files if not file.exists()]
    next_file = "/".join(missing[0].parts[-2:]) if missing else ""
    return name, len(files) - len(missing), len(files), next_file


def pace(folders: list[Path]) -> str:
    """A run's time per iteration, the time that the others will take at this pace, and its last F1.

    Empty before the first iteration is done.
    """
    ends = [folder for folder in folders if (folder / "policy.json").exists()]
    paths = [[cost_path(folder, phase) for phase in PHASES] for folder in ends]
    seconds = [
        sum(storage.read_json(path)["seconds"] for path in each)
        for each in paths
        if all(path.exists() for path in each)
    ]
    if not seconds:
        return ""
    each = statistics.fmean(seconds)
    words = f"{each:,.0f} s an iteration"
    if remaining := len(folders) - len(ends):
        words += f", about {datetime.timedelta(seconds=round(each * remaining))} left"
    metrics = [folder / "metrics.json" for folder in folders if (folder / "metrics.json").exists()]
    if metrics:
        words += f", sampled F1 {storage.read_json(metrics[-1])['overall']['f1']['mean']:.2f}"
    return words


def going_on(root: Path) -> Iterator[str]:
    """What a run of Snakemake in `root` does at the moment, and what failed in it or in the last one."""
    notes, alive = root / ".snakemake/igpo.json", root / ".snakemake/alive"
    jobs = storage.read_json(notes) if notes.exists() else {"running": [], "failed": []}
    if alive.exists() and is_held(alive):
        for job in jobs["running"]:
            yield f"running: {job['words']} ({time.time() - job['begun']:,.0f} s); {', '.join(job['logs'])}"
    for job in jobs["failed"]:
        yield f"failed: {job['words']}: {job['reason']}; {', '.join(job['logs'])}"


def warnings(params: Mapping[str, Any], root: Path) -> Iterator[str]:
    """What the iterations' health warns of, as far as they are done."""
    for folder in layout.iterations(params["run"]):
        path = root / folder / "health.json"
        for sentence in storage.read_json(path)["warnings"] if path.exists() else []:
            yield f"{folder.removeprefix('results/runs/')}: {sentence}"


def lines(params: Mapping[str, Any], root: Path) -> Iterator[str]:
    """One line per part, running job, failed job and warning."""
    run = params["run"]
    whose = {f"{arm} s{seed}": (arm, seed) for arm in run["arms"] for seed in run["seeds"]}
    folders = {name: layout.run_iterations(run, *pair) for name, pair in whose.items()}
    for name, there, number, next_file in steps(params, root):
        state = "done" if there == number else f"next: {next_file}"
        words = pace([root / folder for folder in folders[name]]) if name in folders else ""
        yield f"{name:<14} {there:>4} of {number:<4} {state:<28} {words}".rstrip()
    yield from going_on(root)
    yield from (f"warning: {sentence}" for sentence in warnings(params, root))


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="folder that holds results/")
    parser.add_argument("--watch", action="store_true", help="again every five seconds, until Ctrl-C")


def run(args: argparse.Namespace) -> str:
    """Print the lines, once or again and again."""
    params = checks.read(args)
    console = Console(highlight=False, soft_wrap=True)
    while True:
        text = visible("\n".join(lines(params, args.root)))
        if args.watch:
            console.clear()
        console.print(text, markup=False)
        if not args.watch:
            return ""
        time.sleep(5)


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
