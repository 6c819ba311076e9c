"""Shards of a table -> the table: the bytes that one job alone would have written.

What the shards cost is joined too: seconds, phases and tokens are summed, so that a speed is that of one job.
"""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa

from igpo.experiment import schema
from pipeline import cost, stage, storage
from pipeline.errors import UserError

TABLES = {"rollout": schema.ROLLOUTS, "score": schema.SCORES}


def read_shards(paths: list[Path], columns: pa.Schema) -> tuple[schema.Rows, dict[str, str]]:
    """The rows of all shards, and the metadata that all shards with rows share.

    Raises UserError if two differ in it: they are of different policies, questions or settings.
    """
    tables = {path: storage.read(path, columns) for path in paths}
    filled = {path: table for path, table in tables.items() if table.num_rows} or tables
    first = next(iter(filled))
    metadata = filled[first].schema.metadata
    for path, table in filled.items():
        if table.schema.metadata != metadata:
            raise UserError(f"{path}: a shard of another table than {first}; make all of them again")
    rows = [row for table in filled.values() for row in table.to_pylist()]
    return rows, {name.decode(): value.decode() for name, value in metadata.items()}


def joined_costs(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all shards cost together."""
    phases: dict[str, float] = {}
    for spent in costs:
        for name, seconds in spent["phases"].items():
            phases[name] = phases.get(name, 0.0) + seconds
    return {
        "began": min(spent["began"] for spent in costs),
        "ended": max(spent["ended"] for spent in costs),
        "seconds": sum(spent["seconds"] for spent in costs),
        "phases": phases,
        "tokens": sum(spent["tokens"] for spent in costs),
        "device": next((spent["device"] for spent in costs if spent["device"]), None),
        "threads": max(spent["threads"] or 0 for spent in costs) or None,
        "peak_bytes": max(spent["peak_bytes"] for spent in costs),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--stage", choices=TABLES, required=True, help="that made the shards")
    parser.add_argument("--shards", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> str:
    """Join tables and costs."""
    columns = TABLES[args.stage]
    rows, metadata = read_shards(args.shards, columns)
    costs = [storage.read_json(cost.path(path, args.stage)) for path in args.shards]
    storage.write_json(joined_costs(costs), cost.path(args.out, args.stage))
    storage.write(rows, columns, args.out, schema.TURN_KEY, metadata)
    return f"{len(rows)} rows of {len(args.shards)} shards"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
