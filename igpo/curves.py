"""Rows of curves: what an iteration trained on, and how the policy that acted in it does on dev questions."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igpo.tables import curve_row, mean, run_of
from retrieval import tables
from retrieval.errors import UserError

DEV_METRICS = ("f1", "em", "answer_rate", "format_failure", "searches", "turns")
DEV = (  # columns of a row whose policy was validated
    *("dev_f1", "dev_em", "dev_f1_low", "dev_f1_high", "dev_answer_rate", "dev_format_failure"),
    *("dev_searches", "dev_turns", "dev_n", "dev_f1_1hop", "dev_f1_2hop"),
)
Row = dict[str, Any]


def arguments(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """The options of a stage that reads curves."""
    parser.add_argument(
        "--iterations",
        type=Path,
        nargs="+" if required else "*",
        required=required,
        default=[],
        metavar="DIR",
        help="runs/ARM/sS/K",
    )
    parser.add_argument(
        "--validations", type=Path, nargs="*", default=[], metavar="DIR", help="runs/ARM/sS/K/validation"
    )


def dev_values(folder: Path) -> Row:
    """The `DEV` columns of a validation's folder; F1 by hops is None where no question has so many."""
    metrics = tables.read_json(folder / "metrics.json")
    if "hops" not in metrics:
        raise UserError(f"{folder / 'metrics.json'}: has no 'hops'; evaluate again")
    overall = metrics["overall"]
    row: Row = {f"dev_{name}": mean(overall, name) for name in DEV_METRICS}
    row |= {f"dev_f1_{bound}": overall["f1"][bound] for bound in ("low", "high")}
    row |= {f"dev_f1_{hops}hop": mean(metrics["hops"].get(hops, {}), "f1") for hops in ("1", "2")}
    return row | {"dev_n": overall["n"]}


def by_policy(validations: Iterable[Path]) -> dict[tuple[str, str, int] | None, Path]:
    """Validations by (arm, seed, updates) of their policy; None for the warm start's that runs share."""
    found: dict[tuple[str, str, int] | None, Path] = {}
    for folder in validations:
        run = None
        if folder.absolute().parent.name != "warmup":
            arm, seed, k = run_of(folder.absolute().parent)
            run = arm, seed, int(k)
        found[run] = folder
    return found


def curve_rows(iterations: Sequence[Path], validations: Sequence[Path] = ()) -> list[Row]:
    """A row for every iteration, with `updates`, which the policy that acted in it has had, and its `DEV` columns.

    A run's last policy acts in no iteration: where it was validated, a last row has these columns alone.
    """
    dev, rows, last = by_policy(validations), [], {}
    for folder in iterations:
        arm, seed, k = run_of(folder)
        updates = int(k) - 1
        shared = None if updates == 0 and (arm, seed, 0) not in dev else (arm, seed, updates)
        known = dev_values(dev[shared]) if shared in dev else {}
        rows.append(curve_row(folder) | {"updates": updates} | known)
        last[arm, seed] = max(int(k), last.get((arm, seed), 0))
    for (arm, seed), k in last.items():
        if (arm, seed, k) in dev:
            rows.append(_end(arm, seed, k, dev[arm, seed, k]))
    return sorted(rows, key=_order(rows))


def _end(arm: str, seed: str, updates: int, folder: Path) -> Row:
    """The row of a run's last policy."""
    policy = tables.read_json(folder / "metrics.json")["provenance"].get("policy")
    row = {"arm": arm, "seed": int(seed), "iteration": updates + 1, "updates": updates}
    return row | {"policy_sha256": policy} | dev_values(folder)


def _order(rows: Sequence[Row]) -> Any:
    """Run after run, in the order in which runs come."""
    runs = list(dict.fromkeys((row["arm"], row["seed"]) for row in rows))
    return lambda row: (runs.index((row["arm"], row["seed"])), row["iteration"])


def of_iterations(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that an iteration stands behind."""
    return [row for row in rows if "n" in row]
