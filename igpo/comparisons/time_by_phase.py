"""Where the time of training goes: `costs of iterations -> time.{csv,md,tex}`.

Seconds are those of whole stages, their starts included (`pipeline.cost`); this table alone isn't
reproducible to the byte.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from igpo.comparisons.comparison import published_note
from igpo.reporting import published
from igpo.reporting.cells import NOTES, hashes, percent
from igpo.reporting.measured import ALL_PHASES, PHASES, cost_path, device_names
from igpo.reporting.results import SETTINGS, settings
from igpo.reporting.text import Part, write_forms
from igpo.reporting.validation import run_of
from pipeline import stage, storage
from pipeline.errors import UserError

MADE_FROM = ("seed_names", "policy_sha256", "device", "questions_sha256", *SETTINGS, "printed_in")
COLUMNS = ("source", "method", "phase", "share", "seconds", "jobs", *MADE_FROM)


def costs(iterations: Sequence[Path]) -> pd.DataFrame:
    """One row per iteration and phase; `critic` for arms with one.

    Raises UserError if the cost of an iteration's phase is missing.
    """
    rows = []
    for folder in iterations:
        arm, seed, _ = run_of(folder)
        for phase in ALL_PHASES if (folder / "values.parquet").exists() else PHASES:
            path = cost_path(folder, phase)
            if not path.exists():
                raise UserError(f"{path}: no such file; snakemake --forcerun {phase} measures it")
            cost = storage.read_json(path)
            rows.append((arm, seed, folder, phase, cost["seconds"], cost["device"] or ""))
    return pd.DataFrame(rows, columns=["method", "seed", "folder", "phase", "seconds", "device"])


def our_rows(iterations: Sequence[Path]) -> list[dict[Any, Any]]:
    """One row per arm and phase, with each seed's last policy."""
    tables = []
    for arm, own in costs(iterations).groupby("method", sort=False):
        last = own.drop_duplicates("seed", keep="last")
        policies = [storage.read_json(folder / "policy.json")["weights_sha256"] for folder in last["folder"]]
        provenances = [storage.read_json(folder / "metrics.json")["provenance"] for folder in last["folder"]]
        table = own.groupby("phase", sort=False, as_index=False).agg(
            seconds=("seconds", "sum"), jobs=("seconds", "size"), device=("device", device_names)
        )
        shares, seeds = table["seconds"] / table["seconds"].sum(), " ".join(last["seed"])
        names = {"seed_names": seeds, "policy_sha256": " ".join(policies), **settings(provenances)}
        tables.append(table.assign(source="ours", method=arm, share=shares, **names))
    return pd.concat(tables).to_dict("records")


def published_rows() -> list[dict[str, Any]]:
    """The paper's table, its phases by our names."""
    return [
        {"source": "published", "method": "IGPO", "phase": row["phase"], "share": float(row["share"]) / 100}
        | {"printed_in": published.printed_in("time")}
        for row in published.read("time")
    ]


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): methods by phases in per cent; seconds, jobs and seeds if they are known."""
    share = {(row["method"], row["phase"]): row["share"] for row in rows}
    phases = [phase for phase in ALL_PHASES if any(row["phase"] == phase for row in rows)]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        seconds = f"{sum(row['seconds'] for row in mine):,.0f}" if "seconds" in mine[0] else "–"
        words = [str(mine[0].get(name, "–")) for name in ("jobs", "seed_names")]
        lines.append([method, *(percent(share.get((method, name))) for name in phases), seconds, *words])
    return ["method", *phases, "seconds", "iterations", "seeds"], lines


def provenance_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): what each arm's rows were made from; hashes are shortened."""
    lines = []
    for method, group in itertools.groupby(rows, key=lambda row: row["method"]):
        mine = list(group)
        devices = device_names(row["device"] for row in mine)
        lines.append([method, mine[0]["seed_names"], hashes(mine[0]["policy_sha256"]), devices])
    return ["method", "seeds", "policies", "run on"], lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument(
        "--iterations", type=Path, nargs="+", required=True, metavar="DIR", help="runs/ARM/sS/K"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Write the table in three forms."""
    ours, theirs = our_rows(args.iterations), published_rows()
    parts = [
        Part("Ours: time by phase", *cells(ours), NOTES["time"]),
        Part("Where ours come from", *provenance_cells(ours), NOTES["devices"]),
        Part("Published by the paper", *cells(theirs), published_note("time", "Per cent of the time")),
    ]
    write_forms([*ours, *theirs], COLUMNS, parts, args.out / "time")
    return f"{len(ours)} rows"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
