"""One trajectory as lines for a terminal or a page of text."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WIDTH = 110
BAR = 3.0  # log-probability per token that a bar of ten blocks stands for
# Control characters, and marks that turn the direction of writing, as signs that a terminal only shows.
SIGNS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
SIGNS |= {0x7F: "␡"} | dict.fromkeys(range(128, 160), "�")
SIGNS |= {
    code: f"<U+{code:04X}>" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class Line(NamedTuple):
    """A line and what it is: head | turn | policy | read | answer."""

    text: str
    kind: str


def visible(text: str) -> str:
    """Text without anything that a terminal would act on."""
    return text.replace("\r\n", "\n").translate(SIGNS)


def render(
    rows: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]] = (),
    question: Mapping[str, Any] | None = None,
) -> list[Line]:
    """A trajectory: what the model wrote, what it searched, what it read, what that was worth."""
    worth = {score["turn"]: score for score in scores}
    lines = [Line(f"{rows[0]['question_id']}, sample {rows[0]['sample']}: {rows[-1]['stop']}", "head")]
    if question:
        lines.append(Line(f"question: {question['question']}", "head"))
        lines.append(Line(f"gold: {' | '.join(question['answers'])}", "head"))
    lines.append(
        Line(f"turn 0: prompt of {len(rows[0]['observation_ids'])} tokens{_worth(worth.get(0))}", "turn")
    )
    lines += _block(rows[0]["observation"] or "", "  | ", "read")
    for row in rows[1:]:
        tokens = f"turn {row['turn']}: {len(row['policy_ids'])} tokens"
        lines.append(Line(f"{tokens}{_worth(worth.get(row['turn']))}", "turn"))
        lines += _block(row["text"], "  ", "policy")
        if row["observation"]:
            lines.append(Line(f"  read {', '.join(row['hit_ids']) or 'nothing'}:", "read"))
            lines += _block(row["observation"], "  | ", "read")
    if rows[-1]["answer"] is not None:
        lines.append(Line(f"answer: {rows[-1]['answer']}", "answer"))
    return [Line(visible(line.text), line.kind) for line in lines]


def _worth(score: Mapping[str, Any] | None) -> str:
    """What the scores say about a turn, its information gain as a bar too."""
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
    words = "".join(f", {label} {score[key]:+.3f}" for key, label in names.items() if score[key] is not None)
    return words if score["info_gain"] is None else f"{words} {bar(score['info_gain'])}".rstrip()


def bar(gain: float) -> str:
    """Up to ten blocks, dark for what helped and light for what harmed."""
    blocks = min(10, round(10 * abs(gain) / BAR))
    return ("█" if gain > 0 else "░") * blocks


def _block(text: str, indent: str, kind: str) -> list[Line]:
    """Wrapped and indented lines; the text's own line breaks stay."""
    width = WIDTH - len(indent)
    parts = [part for line in text.strip().splitlines() for part in textwrap.wrap(line, width) or [""]]
    return [Line(indent + part, kind) for part in parts]
