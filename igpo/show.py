"""One trajectory for a reader: `rollouts [, scores, questions] -> text`; on a terminal in colour."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from igpo.experiment import schema
from igpo.reporting.folders import f1, found
from igpo.reporting.trajectory_text import render
from pipeline import stage, storage
from pipeline.errors import UserError

STYLES = {"head": "bold", "turn": "cyan", "policy": "", "read": "dim", "answer": "bold green"}


CASES: dict[str, Callable[[schema.Rows, Mapping[str, Any]], bool]] = {
    "wrong-but-found": lambda rows, question: f1(rows, question) == 0 and found(rows, question) == 1,
    "right-without-evidence": lambda rows, question: (
        f1(rows, question) == 1 and bool(question["supporting_ids"]) and not found(rows, question)
    ),
}


def choose(
    args: argparse.Namespace, trajectories: list[schema.Rows], questions: Mapping[str, Mapping[str, Any]]
) -> schema.Rows:
    """The trajectory that the options ask for, the first of several. Raises UserError if there is none."""
    trajectories = [
        rows
        for rows in trajectories
        if args.question in (None, rows[0]["question_id"]) and args.sample in (None, rows[0]["sample"])
    ]
    if args.best or args.worst or args.case:
        unknown = {rows[0]["question_id"] for rows in trajectories} - set(questions)
        if unknown:
            raise UserError(
                f"--best, --worst and --case need the questions: give --questions with {min(unknown)!r}"
            )
    if args.case:
        case = CASES[args.case]
        trajectories = [rows for rows in trajectories if case(rows, questions[rows[0]["question_id"]])]
    if args.best or args.worst:
        sign = -1 if args.best else 1
        trajectories.sort(key=lambda rows: sign * f1(rows, questions[rows[0]["question_id"]]))
    return trajectories[0] if trajectories else []


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="adds information gain and outcome")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="adds the question and its answers")
    parser.add_argument("--question", metavar="ID", help="default: the first that fits")
    parser.add_argument("--sample", type=int, metavar="N", help="default: the first that fits")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--best", action="store_true", help="the one with the highest F1")
    order.add_argument("--worst", action="store_true", help="the one with the lowest F1")
    parser.add_argument("--case", choices=CASES, help="one of this kind")


def run(args: argparse.Namespace) -> str:
    """Print the trajectory."""
    trajectories = schema.trajectories(storage.read(args.rollouts, schema.ROLLOUTS).to_pylist())
    if not trajectories:
        raise UserError(f"{args.rollouts}: no trajectories")
    table = storage.read(args.questions, schema.QUESTIONS).to_pylist() if args.questions else []
    questions = {row["question_id"]: row for row in table}
    rows = choose(args, trajectories, questions)
    if not rows:
        some = ", ".join(dict.fromkeys(rows[0]["question_id"] for rows in trajectories[:3]))
        options = {name: getattr(args, name) for name in ("question", "sample", "case")}
        words = ", ".join(f"{name} {value!r}" for name, value in options.items() if value is not None)
        raise UserError(f"{args.rollouts}: no trajectory of {words}; it has {some}, …")
    key = rows[0]["question_id"], rows[0]["sample"]
    scores = storage.read(args.scores, schema.SCORES).to_pylist() if args.scores else []
    mine = [score for score in scores if (score["question_id"], score["sample"]) == key]
    console = Console(highlight=False, soft_wrap=True)
    for line in render(rows, mine, questions.get(rows[0]["question_id"])):
        console.print(Text(line.text, STYLES[line.kind]))
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
