"""Figures: `iterations -> NAME.svg, .pdf, .png`, for every name in `FIGURES`. Equal numbers give equal bytes.

A figure's metadata say which policies its points are of.
"""

import argparse
from pathlib import Path

from igpo.reporting import validation
from igpo.reporting.curves import curve_rows
from igpo.reporting.plots import drawings
from pipeline import stage, storage

FORMS = ("svg", "pdf", "png")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    validation.arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Write every figure of iterations."""
    figures = drawings(curve_rows(args.iterations, args.validations))
    for name, drawing in figures.items():
        for form in FORMS:
            with storage.replacing(args.out / f"{name}.{form}") as temporary:
                temporary.write_bytes(drawing.render(form))
    return f"{len(figures)} figures of {len(args.iterations)} iterations"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
