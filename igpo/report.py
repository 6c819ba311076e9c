"""One self-contained page: `evaluations, iterations, coverage, questions -> report.html`.

No script and nothing from elsewhere: it opens from a file without a network.
"""

import argparse
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from igpo.data.audit import read_coverage
from igpo.experiment import checks, schema
from igpo.reporting import plots, published, validation
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
from igpo.reporting.trajectory_text import pick, render
from pipeline import sections, stage, storage

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;
  margin: 2rem auto; max-width: 66rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; }
.published { background: #f4f1ea; padding: .5rem 1rem; border-left: 4px solid #b9a66b; }
.wide { overflow-x: auto; } .note { color: #555; font-size: .9rem; } svg { max-width: 100%; height: auto; }
pre { background: #f6f8fa; padding: 1rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
"""


def table(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """An HTML table of escaped cells."""
    lines = [f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in cells]
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def results_part(rows: Sequence[Mapping[str, Any]]) -> str:
    """Our tables and figures, then the published rows in a box of their own."""
    parts = []
    for name, block in by_benchmark(rows).items():
        parts.append(f"<h3>{html.escape(title(name, block))}</h3>")
        parts.append(table(*our_cells(block)))
        parts.append(plots.intervals(block, [method_name(row) for row in block]))
        parts.append(table(*detail_cells(block)))
        heads, cells = hop_cells(block)
        parts += [table(heads, cells)] if cells else []
    parts.append(f"<p class=note>{html.escape(notes(rows))}</p>")
    parts.append(f"<p class=note>{html.escape(detail_notes(rows))}</p>")
    theirs = table(*published_cells(published.f1_rows("main")))
    return "\n".join([*parts, published_box(theirs, NOTES["published"])])


def published_box(theirs: str, note: str) -> str:
    """What the paper printed, told apart from ours."""
    text = f"{theirs}<p class=note>{html.escape(note)}</p>"
    return f"<div class=published><h3>Published by the paper</h3>{text}</div>"


def warnings_part(rows: Sequence[Mapping[str, Any]]) -> str:
    """What went wrong in which iteration; empty if nothing did."""
    lines = [
        f"{row['arm']} s{row['seed']} iteration {row['iteration']}: {row['warnings']}"
        for row in rows
        if row["warnings"]
    ]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h3>Warnings</h3><ul>{items}</ul>" if lines else ""


def evidence_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): information gain by what a search showed, over all iterations and seeds of an arm."""
    cells = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        for name, label in plots.FIGURES["evidence"][2].items():
            found = [row for row in rows if row["arm"] == arm and row.get(f"{name}_n")]
            turns = sum(row[f"{name}_n"] for row in found)
            if turns:
                gain, positive = (
                    sum(row[column] * row[f"{name}_n"] for row in found) / turns
                    for column in (name, f"{name}_positive")
                )
                cells.append([arm, label, str(turns), f"{gain:+.2f}", percent(positive)])
    return ["method", "the search showed", "turns", "mean information gain", "above 0, per cent"], cells


def evidence_part(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same as HTML; empty if no supporting passages are known."""
    heads, cells = evidence_cells(rows)
    return f"<h3>Information gain by evidence</h3>{table(heads, cells)}" if cells else ""


def training_part(rows: Sequence[Mapping[str, Any]]) -> str:
    """Warnings, the figures of all iterations, and what can be read from the paper's training curves."""
    iterations = validation.of_iterations(rows)
    parts = [warnings_part(iterations), evidence_part(iterations)]
    parts += [
        f"<h3>{html.escape(plots.FIGURES[name][0])}</h3>{figure}"
        for name, figure in plots.drawn(rows).items()
    ]
    heads, *cells = published.curves()
    note = (
        "Dev questions choose a policy where run.select says so, and train none. The other figures are of the"
    )
    note += " trajectories that each iteration trains on; tables/curves.csv has the numbers."
    return "\n".join(
        [*parts, f"<p class=note>{note}</p>", published_box(table(heads, cells), published.CURVES)]
    )


def types_part(evaluations: Sequence[Evaluation]) -> str:
    """F1 by type of question."""
    types = list(evaluations[0].metrics.get("types", {}))
    names = [f"{method_name({'method': e.arm})}{f' s{e.seed}' if e.seed else ''}" for e in evaluations]
    cells = []
    for kind in types:
        found = [e.metrics["types"].get(kind) for e in evaluations]
        f1 = [percent(values["f1"]["mean"]) if values else "–" for values in found]
        cells.append([kind or "–", str(evaluations[0].metrics["types"][kind]["n"]), *f1])
    return table(["type of question (F1)", "n", *names], cells)


def coverage_part(coverage: Mapping[str, Any]) -> str:
    """What the indexes hold and find, a line per depth."""
    columns = {"answer": "answer_at", "answer by chance": "chance_answer_at"}
    columns |= {"supporting passages": "gold_at", "all of them": "all_gold_at"}
    parts = []
    for name, values in coverage["benchmarks"].items():
        share = percent(values["answer_in_corpus"])
        held = f"{name}: {values['n']} questions, an answer is in the corpus for {share} %"
        cells = [
            [f"top {k}", *(percent(values[key][k]) for key in columns.values())]
            for k in sorted(values["answer_at"], key=int)
        ]
        parts += [f"<h3>{html.escape(held)}</h3>", table(["found in", *columns], cells)]
    note = "Per cent of questions; the query is the question itself."
    return "\n".join([*parts, f"<p class=note>{note}</p>"])


def examples_part(folder: Path, questions: pa.Table) -> str:
    """The best and the worst trajectory of one iteration by outcome, the first by id among equals."""
    scores = storage.read(folder / "scores.parquet", schema.SCORES).to_pylist()
    rollouts = storage.read(folder / "rollouts.parquet", schema.ROLLOUTS)
    ends = [row for row in scores if row["outcome"] is not None]
    known = {row["question_id"]: row for row in questions.to_pylist()}
    parts = []
    chosen = [max(ends, key=lambda row: row["outcome"]), min(ends, key=lambda row: row["outcome"])]
    for end in chosen[: 1 if chosen[0] is chosen[1] else 2]:
        rows = pick(rollouts, end["question_id"], end["sample"])
        mine = [s for s in scores if (s["question_id"], s["sample"]) == (end["question_id"], end["sample"])]
        text = render(rows, mine, known.get(end["question_id"]))
        parts.append(f"<pre>{html.escape(text)}</pre>")
    return "\n".join(parts)


def provenance_part(evaluations: Sequence[Evaluation]) -> str:
    """Where every number comes from."""
    keys = list(dict.fromkeys(key for e in evaluations for key in e.metrics["provenance"]))
    cells = []
    for evaluation in evaluations:
        values = [evaluation.metrics["provenance"].get(key) for key in keys]
        cells.append([_short(value) for value in values])
    return table(keys, cells)


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a SHA-256
        return f"{value[:12]}…"
    return "–" if value is None else in_words(value)


def page(parts: Mapping[str, str]) -> str:
    """The whole page from its titled parts."""
    body = "\n".join(f"<h2>{html.escape(title)}</h2>\n{part}" for title, part in parts.items())
    head = f"<meta charset=utf-8><title>igpo report</title><style>{STYLE}</style>"
    whole = f"<head>{head}</head><body><h1>Search agents: results</h1>\n{body}</body>"
    return f"<!doctype html>\n<html lang=en>{whole}</html>\n"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--metrics", type=Path, nargs="+", required=True, metavar="FILE", help="evaluations")
    validation.arguments(parser)
    parser.add_argument("--coverage", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE", help="of the training rollouts"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace) -> str:
    """Write the page."""
    params = checks.read(args)
    evaluations = [read_evaluation(path) for path in args.metrics]
    parts = {"Results": results_part(table_rows(evaluations, sections.Tables(**params["tables"])))}
    if args.iterations:
        parts["Training"] = training_part(curve_rows(args.iterations, args.validations))
    parts["By type of question"] = types_part(evaluations)
    parts["What the indexes can answer"] = coverage_part(read_coverage(args.coverage))
    if args.iterations:
        questions = storage.read(args.questions, schema.QUESTIONS)
        where = "/".join(args.iterations[-1].parts[-3:])
        parts[f"Trajectories of {where}: best and worst outcome"] = examples_part(
            args.iterations[-1], questions
        )
    parts["Where the numbers come from"] = provenance_part(evaluations)
    settings = yaml.safe_dump(json.loads(json.dumps(params)), sort_keys=False)
    parts["Parameters"] = f"<pre>{html.escape(settings)}</pre>"
    write_text(page(parts), args.out)
    return f"{len(parts)} parts"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
