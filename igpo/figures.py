"""Figures as SVG: `iterations -> NAME.svg`, for every name in `FIGURES`. Equal numbers give equal bytes.

A figure's metadata say which policies its points are of.
"""

import argparse
from pathlib import Path

from igpo.reporting import validation
from igpo.reporting.curves import curve_rows
from igpo.reporting.plots import drawn
from igpo.reporting.text import write_text
from pipeline import stage


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    validation.arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Write every figure of iterations."""
    figures = drawn(curve_rows(args.iterations, args.validations))
    for name, text in figures.items():
        write_text(text, args.out / f"{name}.svg")
    return f"{len(figures)} figures of {len(args.iterations)} iterations"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
