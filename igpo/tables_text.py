"""The main table for a reader: Markdown and LaTeX from the same cells. Pure text, no files."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NAMES = {
    "closed_book": "closed book",
    "rag": "RAG",
    "cot": "CoT",
    "cot_rag": "CoT + RAG",
    "search_o1": "Search-o1",
    "warmup": "warm start",
}
NOTES = {
    "ours": "Per cent. In brackets the 95 % bootstrap interval over questions; Δ is the difference in F1 to"
    " the baseline's; ± is the standard deviation over seeds.",
    "detail": "Per cent. Δ F1 and its 95 % bootstrap interval are paired by question; p is twice the share of"
    " resamples on the other side of zero. Covered: F1 where the corpus holds an answer and every"
    " supporting passage, in brackets the number of questions. SQuAD: F1 on multisets of words and EM, both"
    " without articles. MBE: share that a judge model finds right, where one is set. At the end the share of"
    " trajectories by what ended them without an answer.",
    "vitalqa": "VitalQA is this project's own question set, derived from its corpus by fixed rules: no"
    " number on it compares with a published one.",
    "comparison": "F1 in per cent with its 95 % bootstrap interval over questions, every arm from one warm"
    " start; in brackets the published row that the arm stands for. Δ F1 is paired by question, on the last"
    " benchmark; p is twice the share of resamples on the other side of zero.",
    "per_question": "Per cent of questions whose F1, the mean over seeds, is above, equal to or below the"
    " other arm's.",
    "time": "Per cent of the wall time of these stages, their starts included. rollout: sampling and search;"
    " score: gold-answer, old and reference log-probabilities; train: the update. Advantages take no time"
    " worth measuring.",
    "published": "F1 in per cent as printed in arXiv:2510.14967v2, Table 1: other models (IGPO:"
    " Qwen2.5-7B-Instruct), other benchmarks, other retrievers, no seeds or intervals given."
    " Not reproduced here.",
}
HEADS = ["method", "F1", "95 % interval", "Δ F1", "EM", "answered", "malformed", "searches"]
DETAIL_HEADS = ["method", "Δ F1", "95 % interval", "p", "covered", "uncovered", "F1 SQuAD", "EM SQuAD"]
DETAIL_HEADS += ["MBE", "bad format", "too long", "turn limit", "error"]


def percent(value: float | None) -> str:
    """A share in per cent with one decimal; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f}"


def method_name(row: Mapping[str, Any]) -> str:
    """What the reader calls a method."""
    return NAMES.get(row["method"], row["method"])


def our_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of one benchmark's table, `HEADS` for columns."""
    cells = []
    for row in rows:
        spread = "" if row["f1_std"] is None else f" ± {percent(row['f1_std'])}"
        searches = "–" if row["searches"] is None else f"{row['searches']:.2f}"
        cells.append(
            [
                method_name(row),
                percent(row["f1"]) + spread,
                f"[{percent(row['f1_low'])}, {percent(row['f1_high'])}]",
                f"{100 * row['f1_difference']:+.1f}",
                percent(row["em"]),
                percent(row["answer_rate"]),
                percent(row["format_failure"]),
                searches,
            ]
        )
    return cells


def detail_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of one benchmark's second table, `DETAIL_HEADS` for columns."""
    shares = ("f1_squad", "em_squad", "mbe", "format_error", "token_limit", "turn_limit", "error")
    return [
        [
            method_name(row),
            f"{100 * row['f1_difference']:+.1f}",
            f"[{100 * row['f1_difference_low']:+.1f}, {100 * row['f1_difference_high']:+.1f}]",
            f"{row['f1_difference_p']:.3f}",
            *(f"{percent(row[f'f1_{name}'])} ({row[f'n_{name}']})" for name in ("covered", "uncovered")),
            *(percent(row[name]) for name in shares),
        ]
        for row in rows
    ]


def published_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of the paper's table: methods by benchmarks."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    f1 = {(row["method"], row["benchmark"]): row["f1"] for row in rows}
    cells = [[method, *(percent(f1.get((method, name))) for name in benchmarks)] for method in methods]
    return ["method", *benchmarks], cells


def by_benchmark(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Our rows, grouped."""
    return {
        name: [row for row in rows if row["benchmark"] == name]
        for name in dict.fromkeys(row["benchmark"] for row in rows)
    }


def title(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Heading of one benchmark's table."""
    seeds = max(row["seeds"] for row in rows)
    return f"Ours: {name}, {rows[0]['n']} questions, {seeds} seed{'s' if seeds > 1 else ''}"


def notes(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a reader must know about our rows."""
    own = any(row["benchmark"].startswith("vitalqa") for row in rows)
    return NOTES["ours"] + (f" {NOTES['vitalqa']}" if own else "")


def markdown_table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * (width - 1) + ":" if i else "-" * width for i, width in enumerate(widths)], *cells]
    padded = (
        [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    )
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def markdown(ours: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> str:
    """The whole table as Markdown."""
    parts = []
    for name, rows in by_benchmark(ours).items():
        parts += [f"## {title(name, rows)}", markdown_table(HEADS, our_cells(rows))]
    parts.append(notes(ours))
    for name, rows in by_benchmark(ours).items():
        parts += [f"## In detail: {name}", markdown_table(DETAIL_HEADS, detail_cells(rows))]
    parts += [NOTES["detail"], "## Published by the paper", markdown_table(*published_cells(published))]
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


def _tex(text: str) -> str:
    for plain, escaped in {"_": r"\_", "%": r"\%", "Δ": r"$\Delta$", "±": r"$\pm$", "–": "--"}.items():
        text = text.replace(plain, escaped)
    return text


def latex_table(caption: str, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A LaTeX table in plain `tabular`."""
    lines = [" & ".join(map(_tex, line)) + r" \\" for line in cells]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\hline",
            " & ".join(map(_tex, heads)) + r" \\ \hline",
            *lines,
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def latex(ours: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]]) -> str:
    """The whole table as LaTeX, plain `tabular` without packages."""
    parts = [
        latex_table(f"{title(name, rows)}. {notes(rows)}", HEADS, our_cells(rows))
        for name, rows in by_benchmark(ours).items()
    ]
    parts.append(latex_table(f"Published. {NOTES['published']}", *published_cells(published)))
    return "\n\n".join(parts) + "\n"
