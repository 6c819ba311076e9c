"""One trajectory as text."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

WIDTH = 110


def pick(table: pa.Table, question_id: str, sample: int) -> list[dict[str, Any]]:
    """The rows of one trajectory in the order of its turns; empty if there is none."""
    chosen = pc.and_(pc.equal(table["question_id"], question_id), pc.equal(table["sample"], sample))
    return table.filter(chosen).sort_by("turn").to_pylist()


def render(
    rows: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]] = (),
    question: Mapping[str, Any] | None = None,
) -> str:
    """A trajectory as text: what the model wrote, what it searched, what it read, what that was worth."""
    known = {score["turn"]: score for score in scores}
    lines = [f"{rows[0]['question_id']}, sample {rows[0]['sample']}: {rows[-1]['stop']}"]
    if question:
        lines += [f"question: {question['question']}", f"gold: {' | '.join(question['answers'])}"]
    lines.append(f"turn 0: prompt of {len(rows[0]['observation_ids'])} tokens{_worth(known.get(0))}")
    if rows[0]["observation"]:
        lines += _block(rows[0]["observation"], "  | ")
    for row in rows[1:]:
        lines.append(f"turn {row['turn']}: {len(row['policy_ids'])} tokens{_worth(known.get(row['turn']))}")
        lines += _block(row["text"], "  ")
        if row["observation"]:
            lines += [
                f"  read {', '.join(row['hit_ids']) or 'nothing'}:",
                *_block(row["observation"], "  | "),
            ]
    if rows[-1]["answer"] is not None:
        lines.append(f"answer: {rows[-1]['answer']}")
    return "\n".join(lines)


def _worth(score: Mapping[str, Any] | None) -> str:
    """What the scores say about a turn."""
    if score is None:
        return ""
    names = {
        "gold_logprob": "gold log-prob",
        "info_gain": "information gain",
        "outcome": "outcome",
        "f1": "F1",
    }
    if score["step_reward"] != score["info_gain"]:
        names["step_reward"] = "step reward"
    return "".join(f", {label} {score[key]:+.3f}" for key, label in names.items() if score[key] is not None)


def _block(text: str, indent: str) -> list[str]:
    """Wrapped and indented lines; the text's own line breaks stay."""
    width = WIDTH - len(indent)
    return [
        indent + part for line in text.strip().splitlines() for part in textwrap.wrap(line, width) or [""]
    ]
