"""What the tests of warnings replay: health.json of every iteration of a run -> tests/data/NAME/KKK.json.

    python -m benchmarks.collapse    # runs experiments/collapse.yaml: 9 minutes
    python -m benchmarks.collapse --run results/runs/igpo/s1 healthy    # stores a finished run as NAME

The run lies in results/benchmarks/collapse and goes on where it was. `--params` lays a file over the
experiment.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from pipeline import stage, storage
from pipeline.errors import UserError
from pipeline.settings import read_params

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "experiments/collapse.yaml"


def collapse(work: Path, overlays: list[Path]) -> Path:
    """Run the experiment in folder `work`; returns the run's folder. UserError if it fails."""
    files = [EXPERIMENT, *(overlay.absolute() for overlay in overlays)]
    iterations = read_params(files)["run"]["iterations"]
    targets = [f"results/runs/igpo/s1/{k:03d}/health.json" for k in range(1, iterations + 1)]
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", work]
    command += ["--profile", ROOT / "profiles/default", "--configfile", *files, "--", *targets]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise UserError(f"the experiment failed: see {work / 'logs'}")
    return work / "results/runs/igpo/s1"


def store(run: Path, out: Path) -> int:
    """Copy the numbers of every iteration of a run to `out`; returns how many there are."""
    files = sorted(run.glob("[0-9]*/health.json"))
    if not files:
        raise UserError(f"{run}: no NNN/health.json in it; give a run's folder, as in results/runs/igpo/s1")
    for file in files:
        storage.write_json(storage.read_json(file), out / f"{file.parent.name}.json")
    return len(files)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--run", nargs=2, metavar=("DIR", "NAME"), help="a finished run to store, and as what"
    )
    parser.add_argument("--params", type=Path, action="append", default=[], metavar="FILE", help="repeatable")
    parser.add_argument(
        "--work", type=Path, default=Path("results/benchmarks/collapse"), metavar="DIR", help="of the run"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "tests/data", metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Store a finished run, or make and store one that collapses."""
    folder, name = args.run or (collapse(args.work, args.params), "collapse")
    number = store(Path(folder), args.out / name)
    return f"{number} iterations in {args.out / name}"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
