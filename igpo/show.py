"""One trajectory for a reader: `rollouts [, scores, questions] -> text`, turn by turn."""

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from igpo import schema
from retrieval import stage, tables
from retrieval.errors import UserError

WIDTH = 110


def pick(table: pa.Table, question_id: str, sample: int) -> list[dict[str, Any]]:
    """The rows of one trajectory in the order of its turns; empty where there is none."""
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
    return "".join(f", {label} {score[key]:+.3f}" for key, label in names.items() if score[key] is not None)


def _block(text: str, indent: str) -> list[str]:
    """Wrapped and indented lines; the text's own line breaks stay."""
    width = WIDTH - len(indent)
    return [
        indent + part for line in text.strip().splitlines() for part in textwrap.wrap(line, width) or [""]
    ]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="adds information gain and outcome")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="adds the question and its answers")
    parser.add_argument("--question", metavar="ID", help="default: the first of the file")
    parser.add_argument("--sample", type=int, default=0, metavar="N")


def run(args: argparse.Namespace) -> str:
    """Print the trajectory."""
    rollouts = tables.read(args.rollouts, schema.ROLLOUTS)
    if not len(rollouts):
        raise UserError(f"{args.rollouts}: no trajectories")
    question_id = args.question or rollouts["question_id"][0].as_py()
    rows = pick(rollouts, question_id, args.sample)
    if not rows:
        some = ", ".join(pc.unique(rollouts["question_id"]).to_pylist()[:3])
        raise UserError(
            f"{args.rollouts}: no sample {args.sample} of question {question_id!r}; it has {some}, …"
        )
    scores = pick(tables.read(args.scores, schema.SCORES), question_id, args.sample) if args.scores else []
    question = None
    if args.questions:
        listed = tables.read(args.questions, schema.QUESTIONS)
        found = listed.filter(pc.equal(listed["question_id"], question_id)).to_pylist()
        question = found[0] if found else None
    print(render(rows, scores, question))
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
