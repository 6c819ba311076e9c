"""What of an experiment is finished, by the files in results/; `snakemake -n` says what would run and why."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from igpo.experiment import checks, layout
from pipeline import stage, storage

STEPS = ("rollouts.parquet", "scores.parquet", "advantages.parquet", "policy.json")


def steps(params: Mapping[str, Any], root: Path) -> Iterator[tuple[str, int, int, str]]:
    """(name, files there, files wanted, what comes next) of every part of the experiment below `root`."""
    run = params["run"]
    shared = {
        "corpus": ["corpus.parquet"],
        "indexes": [f"index/{kind}/manifest.json" for kind in params["index"]["kinds"]],
        "base model": ["models/base/policy.json"],
        "questions": [f"questions/{split}.parquet" for split in ("train", "dev", "test")],
        "warm start": ["warmup/policy.json"],
    }
    for name, files in shared.items():
        yield _count(name, [root / "results" / file for file in files])
    for arm in run["arms"]:
        for seed in run["seeds"]:
            ks = range(1, run["iterations"] + 1)
            folders = [root / layout.folder(arm, seed, k) for k in ks]
            yield _count(f"{arm} s{seed}", [folder / step for folder in folders for step in STEPS])
    if validations := layout.validations(params):
        yield _count("validations", [root / folder / "metrics.json" for folder in validations])
    evaluated = [root / f"results/evaluations/{name}/metrics.json" for name in layout.evaluations(run)]
    yield _count("evaluations", evaluated)
    yield _count("tables, page", [root / "results/tables/main.md", root / "results/report.html"])
    yield _count("MLflow", [root / "results/track.json"])


def _count(name: str, files: list[Path]) -> tuple[str, int, int, str]:
    missing = [file for file in files if not file.exists()]
    following = "/".join(missing[0].parts[-2:]) if missing else ""
    return name, len(files) - len(missing), len(files), following


def warnings(params: Mapping[str, Any], root: Path) -> Iterator[str]:
    """What the iterations' health warns of, as far as they are done."""
    for folder in layout.iterations(params["run"]):
        path = root / folder / "health.json"
        for sentence in storage.read_json(path)["warnings"] if path.exists() else []:
            yield f"{folder.removeprefix('results/runs/')}: {sentence}"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="folder that holds results/")


def run(args: argparse.Namespace) -> str:
    """Print one line per part and one per warning."""
    params = checks.read(args)
    for name, done, wanted, following in steps(params, args.root):
        state = "done" if done == wanted else f"next: {following}"
        print(f"{name:<14} {done:>4} of {wanted:<4} {state}")
    for sentence in warnings(params, args.root):
        print(f"warning: {sentence}")
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
