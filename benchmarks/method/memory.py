"""One scoring pass or two updates of a long group, for a look at its process's memory.

    python -m benchmarks.method.memory --model DIR --work scoring|training --group 8

The first update, on one trajectory, makes AdamW's state, which the second one's passes then have beside them.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from benchmarks.method import update
from benchmarks.method.workload import Shape, rollouts
from igpo import train
from igpo.experiment.policy import load, load_tokenizer

TRAJECTORY = Shape(turns=(12,), prompt=304, observation=256)  # 4,096 tokens
TRAINING = dataclasses.replace(update.PARAMS, batch_tokens=4096, checkpoint=True)


def main() -> None:
    """Do the work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", choices=("scoring", "training"), required=True)
    parser.add_argument("--group", type=int, required=True)
    args = parser.parse_args()
    shape = Shape(TRAJECTORY.turns * args.group, TRAJECTORY.prompt, observation=TRAJECTORY.observation)
    tokenizer = load_tokenizer(args.model)
    rows = rollouts(shape, tokenizer)
    if args.work == "scoring":
        model = load(args.model, torch.float32, "tree").eval()
        update.scored(model, update.scoring_trees(rows, tokenizer, information_gain=True))
    else:
        torch.manual_seed(0)
        model, optimiser = train.open_training(args.model, TRAINING)
        _, single = update.training_groups(model, rows, tokenizer)
        for batch in (single[:1], single):
            train.update(model, optimiser, batch, TRAINING)


if __name__ == "__main__":
    main()
