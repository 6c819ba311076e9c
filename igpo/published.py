"""The paper's printed numbers (arXiv:2510.14967v2), as read from `published*.csv` beside this module."""

import csv
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PRINTED = {  # where the paper prints what stands in published_NAME.csv; `main` in published.csv
    "main": "Table 1",
    "algorithms": "Table 2",
    "ablation": "Table 3",
    "basis": "Table 5",
    "time": "Table 7",
    "per_question": "Table 9",
}
NOT_BENCHMARKS = ("method", "family", "model")


def path(table: str) -> Path:
    """The file of a published table."""
    return FOLDER / ("published.csv" if table == "main" else f"published_{table}.csv")


def read(table: str) -> list[dict[str, str]]:
    """The rows of a published table as text; shares in per cent, empty where the paper has a dash."""
    with path(table).open(newline="") as file:
        return list(csv.DictReader(file))


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
        }
        for row in rows
        for name, value in row.items()
        if name not in NOT_BENCHMARKS and value
    ]
