"""Tables for a reader: Markdown, LaTeX and CSV from the same cells."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from igpo.reporting.cells import (
    NOTES,
    Rows,
    by_benchmark,
    detail_cells,
    detail_notes,
    hop_cells,
    notes,
    our_cells,
    provenance_cells,
    published_cells,
    title,
    with_metric,
)
from pipeline import storage


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns, numbers to the right."""
    heads, *cells = ([cell.replace("|", r"\|") for cell in line] for line in (heads, *cells))
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * (width - 1) + ":" if i else "-" * width for i, width in enumerate(widths)], *cells]
    forms = [f"{{:{'>' if i else '<'}{width}}}" for i, width in enumerate(widths)]
    form = f"| {' | '.join(forms)} |"
    return "\n".join(form.format(*line) for line in lines)


def markdown(ours: Rows, theirs: Rows) -> str:
    """The whole table as Markdown."""
    parts = []
    for name, rows in by_benchmark(ours).items():
        parts += [f"## {title(name, rows)}", markdown_table(*our_cells(rows))]
    parts.append(notes(ours))
    for name, rows in by_benchmark(ours).items():
        parts += [f"## In detail: {name}", markdown_table(*detail_cells(rows))]
    parts.append(detail_notes(ours))
    for name, rows in by_benchmark(ours).items():
        heads, cells = hop_cells(rows)
        if cells:
            note = with_metric("hops", rows[0]["metric"])
            parts += [f"## By hops: {name}", markdown_table(heads, cells), note]
    parts += ["## Where ours come from", markdown_table(*provenance_cells(ours))]
    parts += [NOTES["provenance"], "## Published by the paper", markdown_table(*published_cells(theirs))]
    return "\n\n".join([*parts, NOTES["published"]]) + "\n"


class Part(NamedTuple):
    """A table for a reader, its title, and the note below it."""

    title: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]
    note: str = ""


def markdown_parts(parts: Sequence[Part]) -> str:
    """Titled tables as one Markdown text."""
    texts = [(f"## {part.title}", markdown_table(part.heads, part.cells), part.note) for part in parts]
    return "\n\n".join(text for three in texts for text in three if text) + "\n"


def latex_parts(parts: Sequence[Part]) -> str:
    """The same as LaTeX; titles and notes become captions."""
    tables = (latex_table(f"{part.title}. {part.note}".strip(), part.heads, part.cells) for part in parts)
    return "\n\n".join(tables) + "\n"


TEX = str.maketrans(
    {"Δ": r"$\Delta$", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"\\": r"\textbackslash{}"}
    | {sign: f"\\{sign}" for sign in "_%&#${}"}
)


def _tex(text: str) -> str:
    return text.translate(TEX)


def latex_table(caption: str, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A LaTeX table in plain `tabular`."""
    table = pd.DataFrame([list(map(_tex, line)) for line in cells], columns=list(map(_tex, heads)))
    style = table.style.hide(axis="index").set_table_styles(
        [{"selector": rule, "props": ":hline"} for rule in ("toprule", "midrule", "bottomrule")]
    )
    form = "l" + "r" * (len(heads) - 1)
    return style.to_latex(column_format=form, caption=_tex(caption)).rstrip()


def latex(ours: Rows, theirs: Rows) -> str:
    """The whole table as LaTeX, plain `tabular` without packages."""
    parts = [
        latex_table(f"{title(name, rows)}. {notes(rows)}", *our_cells(rows))
        for name, rows in by_benchmark(ours).items()
    ]
    parts.append(latex_table(f"Where ours come from. {NOTES['provenance']}", *provenance_cells(ours)))
    parts.append(latex_table(f"Published. {NOTES['published']}", *published_cells(theirs)))
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """CSV with floats in six significant digits, so that equal numbers give equal bytes."""
    cells = [{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows]
    table = pd.DataFrame(cells, columns=list(columns), dtype=object)  # or whole numbers would become floats
    return table.to_csv(index=False, lineterminator="\n")


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all."""
    with storage.replacing(path) as temporary:
        temporary.write_text(text)


def write_forms(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], parts: Sequence[Part], stem: Path
) -> None:
    """Write a comparison as STEM.csv, of its rows, and as STEM.md and STEM.tex, of its parts."""
    write_text(csv_text(rows, columns), stem.with_suffix(".csv"))
    write_text(markdown_parts(parts), stem.with_suffix(".md"))
    write_text(latex_parts(parts), stem.with_suffix(".tex"))
