"""The paper's printed numbers (arXiv:2510.14967v2), as read from `printed/*.csv`.

`curves.csv` alone is of the first version, which draws these numbers: see `CURVES`.
"""

import csv
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "printed"
PLACES = {  # where the paper prints what stands in NAME.csv
    "main": "Table 1",
    "algorithms": "Table 2",
    "ablation": "Table 3",
    "basis": "Table 5",
    "time": "Table 7",
    "per_question": "Table 9",
}
WITHOUT_NUMBERS = {  # checks of what the paper says that have no number of it beside them, and why
    "gamma": "igpo itself has gamma 1.0, as the paper, which did not tune it and prints no other.",
    "single_turn": "The paper prints no such numbers.",
    "collapse": "The paper's Figure 1 draws such shares for its own runs, without numbers.",
}
CURVES = (  # what a reader must know about curves.csv
    "F1 in per cent, read by eye to about ±1 from the training curves that arXiv:2510.14967v1 draws (7B): the"
    " untrained model, then by reward the best point of a curve and its end, step 60. Not reproduced here."
)
NOT_BENCHMARKS = ("method", "family", "model")


def path(table: str) -> Path:
    """The file of a published table, seen from here: a checkout that is moved has the same inputs."""
    return Path(os.path.relpath(FOLDER / f"{table}.csv"))


def read(table: str) -> list[dict[str, str]]:
    """The rows of a published table as text; shares in per cent, empty if the paper has a dash."""
    with path(table).open(newline="") as file:
        return list(csv.DictReader(file))


def methods(table: str) -> list[str]:
    """The methods that a published table has rows for; none for a check that the paper has no numbers for."""
    if table in WITHOUT_NUMBERS:
        return []
    return ["IGPO"] if table == "per_question" else [row["method"] for row in read(table)]


def printed_in(table: str) -> str:
    """The source of a published table's numbers."""
    return f"arXiv:2510.14967v2, {PLACES[table]}"


def curves() -> list[list[str]]:
    """Heads, then points of the paper's training curves by benchmark, as `CURVES` says."""
    rows = read("curves")
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def f1_rows(table: str) -> list[dict[str, Any]]:
    """A published table of F1 by method and benchmark: one row per cell, F1 as a share, none for a dash.

    A method that stands there with several models has the model in its name.
    """
    rows = read(table)
    several = len({row.get("model") for row in rows}) > 1
    return [
        {
            "source": "published",
            "method": f"{row['method']} ({row['model']})" if several else row["method"],
            "benchmark": name,
            "f1": float(value) / 100,
            "printed_in": printed_in(table),
        }
        for row in rows
        for name, value in row.items()
        if name not in NOT_BENCHMARKS and value
    ]
