"""One self-contained page: `evaluations, iterations, validations, coverage, questions -> report.html`.

Tables and figures, and a browser of all trajectories. It opens from a file and asks for nothing from
elsewhere.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from igpo.data.audit import read_coverage
from igpo.experiment import checks
from igpo.reporting import browser, measured, plots, published, validation
from igpo.reporting.blocks import Block, bullets, figure, heading, note, published_box, table
from igpo.reporting.cells import (
    NOTES,
    by_benchmark,
    detail_cells,
    detail_notes,
    hop_cells,
    method_name,
    notes,
    our_cells,
    percent,
    published_cells,
    title,
)
from igpo.reporting.curves import curve_rows
from igpo.reporting.results import Evaluation, in_words, read_evaluation, table_rows
from igpo.reporting.text import write_text
from pipeline import sections, stage, storage
from pipeline.settings import apply_arm

PAGE = Path(__file__).with_name("reporting") / "page"
TRAJECTORIES = "Trajectories"


def results_part(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Our tables and figures, then the published rows in a box of their own."""
    blocks = []
    for name, mine in by_benchmark(rows).items():
        blocks += [heading(title(name, mine)), table(*our_cells(mine))]
        blocks.append(figure(plots.intervals(mine, [method_name(row) for row in mine]).svg()))
        blocks.append(table(*detail_cells(mine)))
        heads, cells = hop_cells(mine)
        blocks += [table(heads, cells)] if cells else []
    theirs = table(*published_cells(published.f1_rows("main")))
    return [*blocks, note(notes(rows)), note(detail_notes(rows)), published_box(theirs, NOTES["published"])]


def warnings_part(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """What went wrong in which iteration; empty if nothing did."""
    lines = [
        f"{row['arm']} s{row['seed']} iteration {row['iteration']}: {row['warnings']}"
        for row in rows
        if row["warnings"]
    ]
    return [heading("Warnings"), bullets(lines)] if lines else []


def evidence_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): information gain by what a search showed, over all iterations and seeds of an arm."""
    cells = []
    for arm, mine in pd.DataFrame(rows).groupby("arm", sort=False):
        for name, label in plots.FIGURES["evidence"][2].items():
            columns = [name, f"{name}_positive", f"{name}_n"]
            numbers = mine.reindex(columns=columns).astype(float).dropna()
            turns = numbers.pop(f"{name}_n")
            if turns.sum():
                gain, positive = np.average(numbers, axis=0, weights=turns)
                cells.append([str(arm), label, f"{turns.sum():.0f}", f"{gain:+.2f}", percent(positive)])
    return ["method", "the search showed", "turns", "mean information gain", "above 0, per cent"], cells


def evidence_part(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The same with its heading; empty if no supporting passages are known."""
    heads, cells = evidence_cells(rows)
    return [heading("Information gain by evidence"), table(heads, cells)] if cells else []


def training_part(rows: Sequence[Mapping[str, Any]], collection: Mapping[str, Any]) -> list[Block]:
    """Warnings, the figures of all iterations, and what can be read from the paper's training curves."""
    iterations = validation.of_iterations(rows)
    blocks = [*warnings_part(iterations), *evidence_part(iterations)]
    blocks += [
        heading("Information gain by turn, and by outcome"),
        figure(plots.gains(browser.gains(collection)).svg()),
    ]
    for name, drawing in plots.drawings(rows).items():
        blocks += [heading(plots.FIGURES[name][0]), figure(drawing.svg())]
    heads, *cells = published.curves()
    text = "Dev questions choose a policy if run.select says so, and train none. The other figures are of the"
    text += " trajectories that each iteration trains on; tables/curves.csv has the numbers."
    return [*blocks, note(text), published_box(table(heads, cells), published.CURVES)]


def time_part(iterations: Sequence[Path]) -> list[Block]:
    """Seconds and tokens of the stages of all iterations."""
    cells = []
    for phase in measured.ALL_PHASES:
        paths = [path for folder in iterations if (path := measured.cost_path(folder, phase)).exists()]
        # arms that share a first iteration's files have their costs too
        costs = list(
            {(cost["began"], cost["ended"]): cost for cost in map(storage.read_json, paths)}.values()
        )
        if costs:
            seconds, tokens = (sum(cost[name] for cost in costs) for name in ("seconds", "tokens"))
            speed = f"{tokens / seconds:,.0f}"
            devices = measured.device_names(cost["device"] or "" for cost in costs)
            cells.append([phase, str(len(costs)), f"{seconds:,.0f}", f"{tokens:,}", speed, devices])
    return [table(["stage", "jobs", "seconds", "tokens", "tokens/s", "on"], cells)]


def types_part(evaluations: Sequence[Evaluation]) -> list[Block]:
    """F1 by type of question."""
    types = list(evaluations[0].metrics.get("types", {}))
    cells = []
    for kind in types:
        blocks = [e.metrics["types"].get(kind) for e in evaluations]
        f1 = [percent(values["f1"]["mean"]) if values else "–" for values in blocks]
        cells.append([kind or "–", str(evaluations[0].metrics["types"][kind]["n"]), *f1])
    return [table(["type of question (F1)", "n", *map(column_name, evaluations)], cells)]


def coverage_part(coverage: Mapping[str, Any]) -> list[Block]:
    """What the indexes hold and find, a line per depth."""
    columns = {"answer": "answer_at", "answer by chance": "chance_answer_at"}
    columns |= {"supporting passages": "gold_at", "all of them": "all_gold_at"}
    blocks = []
    for name, values in coverage["benchmarks"].items():
        share = percent(values["answer_in_corpus"])
        cells = [
            [f"top {k}", *(percent(values[key][k]) for key in columns.values())]
            for k in sorted(values["answer_at"], key=int)
        ]
        words = f"{name}: {values['n']} questions, an answer is in the corpus for {share} %"
        blocks += [heading(words), table(["found in", *columns], cells)]
    words = (
        "Per cent of questions; the query is the question itself. Supporting passages: the mean share found"
    )
    words += " of those that a question names; all of them: of the questions that name some."
    return [*blocks, note(words)]


def provenance_part(evaluations: Sequence[Evaluation]) -> list[Block]:
    """Where every number comes from: a column per evaluation."""
    origins = [evaluation.metrics["provenance"] for evaluation in evaluations]
    codes = [origin.get("code") or {} for origin in origins]  # digests by stage
    facts = dict.fromkeys(key for origin in origins for key in origin if key not in ("arm", "seed", "code"))
    cells = [[key, *(_short(origin.get(key)) for origin in origins)] for key in facts]
    coded = dict.fromkeys(part for code in codes for part in code)
    cells += [[f"code of {part}", *(_short(code.get(part)) for code in codes)] for part in coded]
    return [table(["made from", *map(column_name, evaluations)], cells)]


def column_name(evaluation: Evaluation) -> str:
    """What stands above an evaluation's column: its method and, if it has one, its seed."""
    name = method_name({"method": evaluation.arm})
    return name if evaluation.seed is None else f"{name} s{evaluation.seed}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a SHA-256
        return f"{value[:12]}…"
    return "–" if value is None else in_words(value)


def settings_part(params: Mapping[str, Any]) -> list[Block]:
    """What the trained arms set apart, first; then all parameters."""
    arms = {name: params["arms"][name] or {} for name in params["run"]["arms"]}
    keys = sorted({(section, key) for arm in arms.values() for section in arm for key in arm[section]})
    settings_of = {name: apply_arm(params, name) for name in arms}
    cells = [
        [f"{section}.{key}", *(in_words(settings[section][key]) for settings in settings_of.values())]
        for section, key in keys
    ]
    whole = Block("text", yaml.safe_dump(json.loads(json.dumps(params)), sort_keys=False))
    apart = [heading("Where the methods differ"), table(["setting", *settings_of], cells)] if cells else []
    return [*apart, heading("All parameters"), whole]


def page(parts: Mapping[str, Sequence[Block]], trajectories: Any) -> str:
    """The whole page from its titled parts and the browser's value."""
    loader = jinja2.FileSystemLoader(PAGE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html.j2").render(
        parts=parts,
        browser_part=TRAJECTORIES,
        trajectories=browser.pack(trajectories),
        style=(PAGE / "page.css").read_text(),
        script=(PAGE / "browser.js").read_text(),
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    validation.arguments(parser)
    parser.add_argument("--coverage", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--questions", type=Path, nargs="+", required=True, metavar="FILE", help="all that were asked"
    )
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR", help="whose tokens are shown")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> str:
    """Write the page."""
    params = checks.read(args)
    evaluations = [read_evaluation(path) for path in args.metrics]
    parts = {"Results": results_part(table_rows(evaluations, sections.Tables(**params["tables"])))}
    folders = [*args.iterations, *args.validations, *(path.parent for path in args.metrics)]
    collection = browser.collect(folders, browser.read_questions(args.questions), args.policy)
    if args.iterations:
        parts["Training"] = training_part(curve_rows(args.iterations, args.validations), collection)
        parts["Time and tokens"] = time_part(args.iterations)
    parts[TRAJECTORIES] = []
    parts["By type of question"] = types_part(evaluations)
    parts["What the indexes can answer"] = coverage_part(read_coverage(args.coverage))
    parts["Where the numbers come from"] = provenance_part(evaluations)
    parts["Parameters"] = settings_part(params)
    write_text(page(parts, collection), args.out)
    return f"{len(parts)} parts, {len(collection['trajectories'])} trajectories"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
