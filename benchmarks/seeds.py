"""A finished experiment with all its seeds -> docs/results/NAME.md and pictures/NAME_dev.svg.

    make tables CONFIG=experiments/seeds.yaml && python -m benchmarks.seeds
    make tables CONFIG=experiments/study.yaml && python -m benchmarks.seeds study
    make tables CONFIG=experiments/methods.yaml && python -m benchmarks.seeds methods
    make tables CONFIG=experiments/bridges.yaml && python -m benchmarks.seeds bridges

On the machine that made it: the page names its processor. Pages of a processor without AVX-512 stand in
docs/results/avx2 (`--out`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages import measure
from igpo.experiment import checks, layout
from igpo.report import evidence_cells
from igpo.reporting import plots
from igpo.reporting.cells import difference, notes, our_cells, percent, searches
from igpo.reporting.curves import curve_rows
from igpo.reporting.results import Evaluation, by_arm, read_evaluation, table_rows
from igpo.reporting.text import markdown_table, write_text
from igpo.reporting.validation import of_iterations
from pipeline import sections
from pipeline.devices import compute_dtype
from pipeline.errors import UserError
from pipeline.settings import read_params

# of experiments with other questions than the default's
TITLES = {"bridges": "Bridges of two hops", "study": "The default recipe on all test questions"}
PAGE = """\
# {title}: {methods}, {seeds}

Made by `{made_by}`. Made on: {machine}.

## Test questions, all seeds

{all_seeds}

{note}

## Each seed by itself

Δ F1 is to the warm start, paired by question, with its 95 % bootstrap interval over questions, and
over seeds in the rows of all.

{each_seed}

## Dev curves

![dev F1 by updates](pictures/{name}_dev.svg)

Greedy answers to the same {dev_n} dev questions. A thin line is a seed, a thick one the mean of all; the band
is the 95 % interval over questions.

{dev}

## Information gain by evidence

{evidence}
"""


def seed_cells(evaluations: Sequence[Evaluation], params: sections.Tables) -> list[list[str]]:
    """A row per trained arm and seed, and one of its seeds together, compared with the warm start."""
    without_seed = [evaluation for evaluation in evaluations if evaluation.seed is None]
    runs = [evaluation for evaluation in evaluations if evaluation.seed is not None]
    cells = []
    for arm, of_arm in by_arm(runs).items():
        own = [(str(evaluation.seed), [evaluation]) for evaluation in of_arm]
        for seed, of_row in [*own, ("all", of_arm)] if len(own) > 1 else own:
            row = table_rows([*without_seed, *of_row], params)[-1]
            mean, bounds, _ = difference(row)
            rates = [percent(row[name]) for name in ("f1", "answer_rate", "format_failure")]
            hops = [percent(row[f"f1_{number}hop"]) for number in (1, 2)]
            cells.append([arm, seed, rates[0], mean, bounds, *hops, *rates[1:], searches(row)])
    return cells


def dev_cells(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): dev F1 of every run by the updates that its policy has had."""
    steps = sorted({row["updates"] for row in rows if "dev_f1" in row})
    runs = dict.fromkeys((row["arm"], row["seed"]) for row in rows)
    dev_f1 = {(row["arm"], row["seed"], row["updates"]): row.get("dev_f1") for row in rows}
    cells = [
        [arm, str(seed), *(percent(dev_f1.get((arm, seed, step))) for step in steps)] for arm, seed in runs
    ]
    return ["method", "seed", *(f"{step} updates" for step in steps)], cells


def counted(what: str, values: Sequence[Any]) -> str:
    """How many values there are, in words."""
    return f"{len(values)} {what}{'s' if len(values) > 1 else ''}"


def page(params: dict[str, Any], root: Path, name: str, made_by: str) -> tuple[str, str]:
    """(page, figure) of a finished run below `root`. Raises UserError if it is not finished."""
    run = params["run"]
    folders = {name: root / f"results/evaluations/{name}" for name in layout.evaluations(run)}
    missing = [folder for folder in folders.values() if not (folder / "metrics.json").exists()]
    if missing:
        raise UserError(f"{missing[0]}: no metrics.json; make it first: {made_by.partition('`')[0]}")
    evaluations = [read_evaluation(folder / "metrics.json") for folder in folders.values()]
    settings = sections.Tables(**params["tables"])
    iterations = [root / folder for folder in layout.iterations(run)]
    curves = curve_rows(iterations, [root / folder for folder in layout.validations(params)])
    rows = table_rows(evaluations, settings)
    heads = ["method", "seed", "F1", "Δ F1", "95 % interval", "one hop", "two hops"]
    text = PAGE.format(
        title=TITLES.get(name, "The default recipe"),
        methods=counted("method", run["arms"]),
        seeds=counted("seed", run["seeds"]),
        made_by=made_by,
        name=name,
        machine=measure.machine(compute_dtype()),
        all_seeds=markdown_table(*our_cells(rows)),
        note=notes(rows),
        each_seed=markdown_table(
            [*heads, "answered", "malformed", "searches"], seed_cells(evaluations, settings)
        ),
        dev_n=next(row["dev_n"] for row in curves if "dev_n" in row),
        dev=markdown_table(*dev_cells(curves)),
        evidence=markdown_table(*evidence_cells(of_iterations(curves))),
    )
    return text, plots.draw("dev", curves).svg()


def main() -> None:
    """Write the page and its figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", nargs="?", default="seeds", metavar="NAME", help="of experiments/NAME.yaml; default: seeds"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    args = parser.parse_args()
    overlay = Path(f"experiments/{args.name}.yaml")
    made_by = f"make tables CONFIG={overlay}`, then `python -m benchmarks.seeds {args.name}"
    try:
        params = read_params([Path("params.yaml"), overlay])
        checks.check(params)
        text, figure = page(params, Path(), args.name, made_by)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    write_text(text, args.out / f"{args.name}.md")
    write_text(figure, args.out / f"pictures/{args.name}_dev.svg")


if __name__ == "__main__":
    main()
