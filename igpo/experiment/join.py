"""Shards of a table -> the table: the bytes that one job alone would have written.

What the shards cost is joined too: seconds, phases and tokens are summed, so that a speed is that of one job.
"""

import argparse
import itertools
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
    with_rows = {path: table for path, table in tables.items() if table.num_rows} or tables
    first = next(iter(with_rows))
    metadata = with_rows[first].schema.metadata
    for path, table in with_rows.items():
        if table.schema.metadata != metadata:
            raise UserError(f"{path}: a shard of another table than {first}; make all of them again")
    rows = [row for table in with_rows.values() for row in table.to_pylist()]
    return rows, {name.decode(): value.decode() for name, value in metadata.items()}


def joined_costs(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """What all shards cost together."""
    phases: dict[str, float] = {}
    for shard_cost in costs:
        for name, seconds in shard_cost["phases"].items():
            phases[name] = phases.get(name, 0.0) + seconds
    clocks = [shard_cost["clock"] for shard_cost in costs if "clock" in shard_cost]
    return {
        **({"clock": list(itertools.chain.from_iterable(clocks))} if clocks else {}),
        "began": min(shard_cost["began"] for shard_cost in costs),
        "ended": max(shard_cost["ended"] for shard_cost in costs),
        "seconds": sum(shard_cost["seconds"] for shard_cost in costs),
        "phases": phases,
        "tokens": sum(shard_cost["tokens"] for shard_cost in costs),
        "device": next((shard_cost["device"] for shard_cost in costs if shard_cost["device"]), None),
        "threads": max(shard_cost["threads"] or 0 for shard_cost in costs) or None,
        "peak_bytes": max(shard_cost["peak_bytes"] for shard_cost in costs),
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
