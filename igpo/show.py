"""One trajectory for a reader: `rollouts [, scores, questions] -> text`, turn by turn."""

import argparse
from pathlib import Path

import pyarrow.compute as pc

from igpo.experiment import schema
from igpo.reporting.trajectory_text import pick, render
from pipeline import stage, storage
from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="adds information gain and outcome")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="adds the question and its answers")
    parser.add_argument("--question", metavar="ID", help="default: the first of the file")
    parser.add_argument("--sample", type=int, default=0, metavar="N")


def run(args: argparse.Namespace) -> str:
    """Print the trajectory."""
    rollouts = storage.read(args.rollouts, schema.ROLLOUTS)
    if not len(rollouts):
        raise UserError(f"{args.rollouts}: no trajectories")
    question_id = args.question or rollouts["question_id"][0].as_py()
    rows = pick(rollouts, question_id, args.sample)
    if not rows:
        some = ", ".join(pc.unique(rollouts["question_id"]).to_pylist()[:3])
        raise UserError(
            f"{args.rollouts}: no sample {args.sample} of question {question_id!r}; it has {some}, …"
        )
    scores = pick(storage.read(args.scores, schema.SCORES), question_id, args.sample) if args.scores else []
    question = None
    if args.questions:
        listed = storage.read(args.questions, schema.QUESTIONS)
        found = listed.filter(pc.equal(listed["question_id"], question_id)).to_pylist()
        question = found[0] if found else None
    print(render(rows, scores, question))
    return ""


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
