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
TRACKED = Path("results/track.json")
PAUSE_S = 5
FILES = ("metrics.json", "policy.json", "scores.parquet", "health.json", "advantages.parquet")
Done = dict[str, tuple[list[Path], list[Path]]]  # run -> (iterations, validations)


def finished(params: Mapping[str, Any]) -> Done:
    """What is done of every run, as long as it has an iteration."""
    run, found = params["run"], {}
    validations = list(map(Path, layout.validations(params)))
    for arm in run["arms"]:
        for seed in run["seeds"]:
            folders = [Path(layout.folder(arm, seed, k)) for k in range(1, run["iterations"] + 1)]
            done = [folder for folder in folders if all((folder / name).exists() for name in FILES)]
            own = [path for path in validations if path.parent in (*folders, Path(layout.folder("", 0, 0)))]
            if done:
                found[f"{arm}_s{seed}"] = done, [path for path in own if (path / "metrics.json").exists()]
    return found


def is_tracked(params: Mapping[str, Any], name: str, iterations: Sequence[Path]) -> bool:
    """Whether `igpo track` has logged a run, as finished, since the last of these iterations."""
    if not TRACKED.exists() or run_key(name, run_params(params, name)) not in storage.read_json(TRACKED):
        return False
    newest = max((folder / file).stat().st_mtime for folder in iterations for file in FILES)
    return TRACKED.stat().st_mtime >= newest


def log_runs(params: Mapping[str, Any], uri: str, runs: Done, status: str) -> None:
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
    known: Done = {}
    while True:
        going = ALIVE.exists() and is_held(ALIVE)
        done = finished(params)
        changed = {name: value for name, value in done.items() if known.get(name) != value}
        if changed:
            log_runs(params, args.uri, changed, "RUNNING")
        known = done
        if not going:
            break
        time.sleep(PAUSE_S)
    if done:
        log_runs(params, args.uri, done, "FAILED")
    return f"{len(done)} runs"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
