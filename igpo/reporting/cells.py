"""Rows of result tables -> the cells that a reader sees, and the notes below them."""

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "closed_book": "closed book",
    "rag": "RAG",
    "cot": "CoT",
    "cot_rag": "CoT + RAG",
    "search_o1": "Search-o1",
    "warmup": "warm start",
    "gamma_05": "igpo, gamma 0.5",
    "gamma_08": "igpo, gamma 0.8",
    "gamma_09": "igpo, gamma 0.9",
}
METRIC_NAMES = {
    "f1": "F1",
    "em": "EM",
    "f1_squad": "F1 SQuAD",
    "em_squad": "EM SQuAD",
    "answer_rate": "answered",
    "format_failure": "malformed",
    "mbe": "MBE",
}
NOTES = {  # F1: `with_metric` puts another metric in its place
    "ours": "Per cent. In brackets the 95 % bootstrap interval over questions, and over seeds if there are"
    " several; Δ is the difference in F1 to the baseline's; ± is the standard deviation over seeds.",
    "detail": "Per cent. Δ F1 and its 95 % bootstrap interval are paired by question and seed; p is twice the"
    " share of resamples on the other side of zero. Covered: F1 where the corpus holds an answer and every"
    " supporting passage, in brackets the number of questions.",
    "hops": "In brackets the number of questions; Δ F1 is to the baseline's on the same questions, paired.",
    "columns": "SQuAD: F1 on multisets of words and EM, both without articles. MBE: share that a judge"
    " model finds right, if one is set. At the end the share of trajectories by what ended them without an"
    " answer.",
    "vitalqa": "VitalQA is this project's own question set, derived from its corpus by fixed rules: no"
    " number on it compares with a published one.",
    "comparison": "F1 in per cent with its 95 % bootstrap interval over questions, and over seeds if there"
    " are several (± is their standard deviation), every arm from one warm start; in brackets the published"
    " row that the arm stands for. Δ F1 is paired by question and seed, on the last benchmark; p is twice the"
    " share of resamples on the other side of zero. Answered and malformed (per cent) and searches are of the"
    " last benchmark too.",
    "provenance": "Questions and policies by the beginning of their SHA-256; updates: how many each seed's"
    " policy has had, and by what it was chosen (run.select). The CSV file has the whole of"
    " it, and each row's protocol, retriever, decoding, corpus, model and code.",
    "per_question": "Per cent of questions whose F1, the mean over seeds, is above, equal to or below the"
    " other arm's.",
    "time": "Per cent of the wall time of these stages, their starts included. rollout: sampling and search;"
    " score: gold-answer, old and reference log-probabilities; train: the update; critic: values and the"
    " critic's update, if a method has one. Advantages take no time worth measuring.",
    "devices": "What the stages say that they ran on, all phases together; the CSV file has it by"
    " phase. A policy is the last of its run.",
    "published": "F1 in per cent as printed in arXiv:2510.14967v2, Table 1: other models (IGPO:"
    " Qwen2.5-7B-Instruct), other benchmarks, other retrievers, no seeds or intervals given."
    " Not reproduced here.",
}
HASH = 12  # characters of a SHA-256 that a reader sees
Rows = Sequence[Mapping[str, Any]]


def percent(value: float | None) -> str:
    """A share in per cent with one decimal; a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.1f}"


def method_name(row: Mapping[str, Any]) -> str:
    """What the reader calls a method; `TABLE_warmup` is the warm start under a table's settings."""
    name = "warmup" if row["method"].endswith("_warmup") else row["method"]
    return NAMES.get(name, name)


def metric_name(metric: str) -> str:
    """What the reader calls a metric."""
    return METRIC_NAMES.get(metric, metric)


def with_metric(note: str, metric: str) -> str:
    """One of `NOTES` about our rows, whose intervals and differences are of `metric`."""
    return NOTES[note].replace("F1", metric_name(metric))


def with_spread(row: Mapping[str, Any]) -> str:
    """The row's metric in per cent, with its standard deviation over seeds if there are several."""
    metric = row["metric"]
    spread = row[f"{metric}_std"]
    return percent(row[metric]) + ("" if spread is None else f" ± {percent(spread)}")


def interval(row: Mapping[str, Any]) -> str:
    """The 95 % interval of the row's metric in per cent."""
    low, high = (percent(row[f"{row['metric']}_{end}"]) for end in ("low", "high"))
    return f"[{low}, {high}]"


def signed_difference(row: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The difference in column `name` in per cent, and its 95 % interval."""
    mean, low, high = (f"{100 * row[name + end]:+.1f}" for end in ("", "_low", "_high"))
    return mean, f"[{low}, {high}]"


def difference(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """The difference to the baseline's metric in per cent, its 95 % interval, and p."""
    name = f"{row['metric']}_difference"
    return *signed_difference(row, name), f"{row[name + '_p']:.3f}"


def searches(row: Mapping[str, Any]) -> str:
    """Searches per trajectory; a dash for what was not measured."""
    return "–" if row["searches"] is None else f"{row['searches']:.2f}"


def our_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of one benchmark's table."""
    metric = rows[0]["metric"]
    shares = ("f1" if metric == "em" else "em", "answer_rate", "format_failure")
    heads = ["method", metric_name(metric), "95 % interval", f"Δ {metric_name(metric)}"]
    cells = []
    for row in rows:
        cells.append(
            [
                method_name(row),
                with_spread(row),
                interval(row),
                difference(row)[0],
                *(percent(row[name]) for name in shares),
                searches(row),
            ]
        )
    return [*heads, *map(metric_name, shares), "searches"], cells


def detail_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of one benchmark's second table."""
    metric = rows[0]["metric"]
    shares = {"f1_squad": "F1 SQuAD", "em_squad": "EM SQuAD", "mbe": "MBE", "format_error": "bad format"}
    shares |= {"token_limit": "too long", "turn_limit": "turn limit", "error": "error"}
    cells = [
        [
            method_name(row),
            *difference(row),
            *(
                f"{percent(row[f'{metric}_{name}'])} ({row[f'n_{name}']})"
                for name in ("covered", "uncovered")
            ),
            *(percent(row[name]) for name in shares),
        ]
        for row in rows
    ]
    heads = ["method", f"Δ {metric_name(metric)}", "95 % interval", "p", "covered", "uncovered"]
    return [*heads, *shares.values()], cells


def hop_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): a benchmark's questions of one hop and of two apart; no cells if it lacks either."""
    metric = rows[0]["metric"]
    heads, cells = ["method"], [[method_name(row)] for row in rows]
    for hops, words in {1: "one hop", 2: "two hops"}.items():
        name, number = f"{metric}_{hops}hop", rows[0][f"n_{hops}hop"]
        heads += [f"{words} ({number})", f"Δ {metric_name(metric)}", "95 % interval"]
        for line, row in zip(cells, rows, strict=True):
            if not number:
                return heads, []
            line += [percent(row[name]), *signed_difference(row, f"{name}_difference")]
    return heads, cells


def label(row: Mapping[str, Any]) -> str:
    """The name of a row of ours, with the published one that it stands for."""
    stands_for = row.get("published_row")
    return f"{method_name(row)} ({stands_for})" if stands_for else method_name(row)


def provenance_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells): what each arm's rows were made from; hashes are shortened."""
    cells = []
    for arm in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == arm]
        numbers = " ".join(f"{row['benchmark']}:{row['n']}" for row in mine)
        seeds, questions = mine[0]["seed_names"] or "–", mine[0]["questions_sha256"][:HASH]
        updates = " ".join(part for part in (mine[0]["iteration"], mine[0]["selected"]) if part) or "–"
        policies = hashes(mine[0]["policy_sha256"])
        cells.append([label(mine[0]), arm, seeds, updates, numbers, questions, policies])
    return ["method", "arm", "seeds", "updates", "n", "questions", "policies"], cells


def hashes(values: str) -> str:
    """SHA-256 values in a line, shortened."""
    return " ".join(value[:HASH] for value in values.split())


def published_cells(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of the paper's table: methods by benchmarks."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    f1 = {(row["method"], row["benchmark"]): row["f1"] for row in rows}
    cells = [[method, *(percent(f1.get((method, name))) for name in benchmarks)] for method in methods]
    return ["method", *benchmarks], cells


def by_benchmark(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Our rows, grouped."""
    return {
        name: [row for row in rows if row["benchmark"] == name]
        for name in dict.fromkeys(row["benchmark"] for row in rows)
    }


def title(name: str, rows: Rows) -> str:
    """Heading of one benchmark's table."""
    seeds = max(row["seeds"] for row in rows)
    return f"Ours: {name}, {rows[0]['n']} questions, {seeds} seed{'s' if seeds > 1 else ''}"


def notes(rows: Rows) -> str:
    """What a reader must know about our rows."""
    own = any(row["benchmark"].startswith("vitalqa") for row in rows)
    return with_metric("ours", rows[0]["metric"]) + (f" {NOTES['vitalqa']}" if own else "")


def detail_notes(rows: Rows) -> str:
    """What a reader must know about the second table."""
    return f"{with_metric('detail', rows[0]['metric'])} {NOTES['columns']}"
