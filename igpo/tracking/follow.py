"""Runs in MLflow while they go on: metrics as each iteration ends, and whether the run came to its end.

The workflow starts this beside itself. It ends with the run, when nobody holds `.snakemake/alive` any more.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.experiment import checks, layout
from igpo.tracking.store import URI, alone, collect, open_store, run_key, run_params, sync
from igpo.tracking.traces import log_traces
from pipeline import stage, storage
from pipeline.locks import is_held

ALIVE = Path(".snakemake/alive")
TRACK = Path("results/track.json")
PAUSE_S = 5
FILES = ("metrics.json", "policy.json", "scores.parquet", "health.json", "advantages.parquet")
Folders = dict[str, tuple[list[Path], list[Path]]]  # run -> (iterations, validations)


def folders_done(params: Mapping[str, Any]) -> Folders:
    """What is done of every run, as long as it has an iteration."""
    run, result = params["run"], {}
    validations = list(map(Path, layout.validations(params)))
    for arm in run["arms"]:
        for seed in run["seeds"]:
            folders = [Path(folder) for folder in layout.run_iterations(run, arm, seed)]
            iterations = [folder for folder in folders if all((folder / name).exists() for name in FILES)]
            own = [path for path in validations if path.parent in (*folders, Path(layout.folder("", 0, 0)))]
            ends = [path for path in own if (path / "metrics.json").exists()]
            if iterations:
                result[f"{arm}_s{seed}"] = iterations, ends
    return result


def is_tracked(params: Mapping[str, Any], name: str, iterations: Sequence[Path]) -> bool:
    """Whether `igpo track` has logged a run, as finished, since the last of these iterations."""
    if not TRACK.exists() or run_key(name, run_params(params, name)) not in storage.read_json(TRACK):
        return False
    newest = max((folder / file).stat().st_mtime for folder in iterations for file in FILES)
    return TRACK.stat().st_mtime >= newest


def log_runs(params: Mapping[str, Any], uri: str, runs: Folders, status: str) -> None:
    """Bring runs up to date and give them a status; those that are tracked stay finished."""
    with alone():
        client, where = open_store(uri)
        for name, (iterations, validations) in runs.items():
            if is_tracked(params, name, iterations):
                continue
            points = collect([], iterations, validations)[name]
            run_id = sync(client, where, name, points, run_params(params, name), status)
            log_traces(client, where, run_id, iterations)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's options."""
    checks.arguments(parser)
    parser.add_argument("--uri", default=URI, help="default: MLFLOW_TRACKING_URI, or mlflow.db here")


def run(args: argparse.Namespace) -> str:
    """Log until Snakemake has ended; a run that is not tracked then did not come to its end."""
    params = checks.read(args)
    before: Folders = {}
    while True:
        alive = ALIVE.exists() and is_held(ALIVE)
        runs = folders_done(params)
        news = {name: value for name, value in runs.items() if before.get(name) != value}
        if news:
            log_runs(params, args.uri, news, "RUNNING")
        before = runs
        if not alive:
            break
        time.sleep(PAUSE_S)
    if runs:
        log_runs(params, args.uri, runs, "FAILED")
    return f"{len(runs)} runs"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
