"""What validations on dev questions add to curves: columns of the iterations in which their policies act."""

import argparse
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.errors import UserError

DEV_METRICS = ("f1", "em", "answer_rate", "format_failure", "searches", "turns")
DEV = (  # columns of a row whose policy was validated
    *("dev_f1", "dev_em", "dev_f1_low", "dev_f1_high", "dev_answer_rate", "dev_format_failure"),
    *("dev_searches", "dev_turns", "dev_n", "dev_f1_1hop", "dev_f1_2hop"),
)
WARM_START = ("", 0, 0)
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


def run_of(folder: Path) -> tuple[str, str, str]:
    """Arm, seed and number of an iteration; UserError if its folder isn't called `ARM/sSEED/K`."""
    match = re.fullmatch(r".*?([^/]+)/s(\d+)/(\d+)", folder.absolute().as_posix())
    if not match:
        raise UserError(f"{folder}: not an iteration's folder, ARM/sSEED/K")
    arm, seed, k = match.groups()
    return arm, seed, k


def dev_values(folder: Path) -> Row:
    """The `DEV` columns of a validation's folder; F1 by hops is None if no question has so many."""
    metrics = storage.read_json(folder / "metrics.json")
    if "hops" not in metrics:
        raise UserError(f"{folder / 'metrics.json'}: has no 'hops'; evaluate again")
    overall, hops = metrics["overall"], metrics["hops"]
    row: Row = {f"dev_{name}": overall[name]["mean"] for name in DEV_METRICS}
    row |= {f"dev_f1_{end}": overall["f1"][end] for end in ("low", "high")}
    row |= {f"dev_f1_{number}hop": hops[number]["f1"]["mean"] if number in hops else None for number in "12"}
    return row | {"dev_n": overall["n"]}


def by_policy(validations: Iterable[Path]) -> dict[tuple[str, int, int], Path]:
    """Validations by arm, seed and updates of their policy; `WARM_START` is the one that runs share."""
    folders = {}
    for folder in validations:
        place = folder.absolute().parent
        arm, seed, k = WARM_START if place.name == "warmup" else run_of(place)
        folders[arm, int(seed), int(k)] = folder
    return folders


def with_dev(rows: Sequence[Row], validations: Iterable[Path]) -> list[Row]:
    """Rows of iterations with `updates`, which the policy that acted has had, and the `DEV` columns.

    A run's last policy acts in no iteration: if it was validated, a last row has these columns alone.
    """
    folders, result = by_policy(validations), []
    for (arm, seed), group in itertools.groupby(rows, key=lambda row: (row["arm"], row["seed"])):
        for row in group:
            updates = row["iteration"] - 1
            start = None if updates else folders.get(WARM_START)
            folder = folders.get((arm, seed, updates), start)
            result.append({**row, "updates": updates, **(dev_values(folder) if folder else {})})
        if end := folders.get((arm, seed, row["iteration"])):
            result.append(_end(row, end))
    return result


def _end(row: Row, folder: Path) -> Row:
    """The row of a run's last policy, after that of its last iteration."""
    policy = storage.read_json(folder / "metrics.json")["provenance"].get("policy")
    end = {"arm": row["arm"], "seed": row["seed"], "iteration": row["iteration"] + 1}
    return end | {"updates": row["iteration"], "policy_sha256": policy} | dev_values(folder)


def of_iterations(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that an iteration stands behind."""
    return [row for row in rows if "n" in row]
