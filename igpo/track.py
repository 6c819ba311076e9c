"""Finished runs in MLflow: `evaluations, iterations, tables, report -> mlflow.db`.

While a run goes on, `igpo follow` logs its iterations; this stage adds what is known at the end and calls the
runs finished. `mlflow.db` may be deleted at any time and made again by `snakemake --forcerun track`.
"""

import argparse
from pathlib import Path

from igpo.experiment import checks
from igpo.reporting import validation
from igpo.tracking.store import URI, alone, collect, log_inputs, open_store, run_key, run_params, sync
from igpo.tracking.traces import log_traces
from pipeline import stage, storage
from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    validation.arguments(parser)
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR")
    parser.add_argument("--uri", default=URI, help="default: MLFLOW_TRACKING_URI, or mlflow.db here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the page, as an artifact")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="list of what is logged")


def run(args: argparse.Namespace) -> str:
    """Bring every run up to date."""
    params = checks.read(args)
    if not args.tables.is_dir():
        raise UserError(f"{args.tables}: no such folder; give the one that `igpo tables` wrote")
    runs = collect(args.metrics, args.iterations, args.validations)
    folders = {path.absolute().parent.name: [path.parent] for path in args.metrics}
    for folder in args.iterations:
        arm, seed, _ = validation.run_of(folder)
        folders.setdefault(f"{arm}_s{seed}", []).append(folder)
    counts = {}
    with alone():
        client, where = open_store(args.uri)
        for name, points in runs.items():
            settings = run_params(params, name)
            run_id = sync(client, where, name, points, settings)
            client.log_dict(run_id, params, "params.yaml")
            client.log_artifacts(run_id, str(args.tables), "tables")
            if args.report:
                client.log_artifact(run_id, str(args.report))
            log_inputs(client, run_id, folders[name])
            log_traces(client, where, run_id, folders[name])
            counts[run_key(name, settings)] = len(points)
        # before `igpo follow` may log again: it leaves alone what stands there
        storage.write_json(counts, args.out)
    return f"{len(runs)} runs, {sum(counts.values())} points in {args.uri}"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
