"""Do two folders of results hold the same numbers?

    python -m benchmarks.same OLD/results NEW/results

Compared are corpora, indexes, questions, policies, rollouts, scores, advantages and tables: by their bytes,
else by the columns that both have. Costs and the digests of code are left out. Prints every file that
differs, and ends with 1 if one does.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from pipeline import storage

KINDS = (".parquet", ".safetensors", ".csv", ".arrow", ".npy", ".faiss")
CODE = "code"  # a column of provenance: digests of stages


def frame(path: Path) -> pd.DataFrame:
    """A table as pandas has it; a CSV file's cells as text."""
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)


def difference(old: Path, new: Path) -> str:
    """How two files differ, "" if they don't."""
    if not new.exists():
        return "missing"
    if storage.sha256(old) == storage.sha256(new):
        return ""
    if old.suffix not in (".parquet", ".csv"):
        return "other bytes"
    before, after = frame(old), frame(new)
    if len(before) != len(after):
        return f"{len(before)} rows, now {len(after)}"
    columns = [name for name in before if name in after and name != CODE]
    unequal_columns = [name for name in columns if before[name].map(repr).ne(after[name].map(repr)).any()]
    lost_columns = [name for name in before if name not in after]
    return ", ".join(
        [*(f"{name} differs" for name in unequal_columns), *(f"{name} is gone" for name in lost_columns)]
    )


def main() -> None:
    """Compare all files of the first folder with those of the second."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    args = parser.parse_args()
    files = [path.relative_to(args.old) for path in sorted(args.old.rglob("*")) if path.suffix in KINDS]
    if not files:
        sys.exit(f"error: {args.old}: no results in it")
    differences = {path: difference(args.old / path, args.new / path) for path in files}
    for path, words in differences.items():
        if words:
            print(f"{path}: {words}")
    count = sum(map(bool, differences.values()))
    print(f"{len(files)} files, {count} of them differ")
    sys.exit(count > 0)


if __name__ == "__main__":
    main()
