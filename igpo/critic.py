"""The critic of PPO: `critic or policy, rollouts, scores -> values.parquet, the next critic`.

V of a turn is a linear head over the model's last state before the turn's first token. The values are those
of the critic as it was; then it takes one step towards the turns' discounted returns (squared error, mean
over turns), which is GAE's target at lambda 1. The first critic is the policy with a head of zeros. Over
several processes it is sharded as the policy is in training.
"""

import argparse
import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from igpo.credit.methods import NO_SPREAD, discounted
from igpo.credit.rewards import turn_reward
from igpo.experiment import schema
from igpo.experiment.policy import STATE, begin, check_finite, load, load_tokenizer, save, weights_sha256
from igpo.experiment.schema import Rows, joined
from igpo.training import distributed
from igpo.training.checkpoint import (
    check_state,
    load_state,
    open_optimiser,
    save_state,
    state_argument,
    take_step,
)
from igpo.training.launch import over_processes
from igpo.training.memory import save_memory
from igpo.tree.forward import autocast, check_model, states
from igpo.tree.groups import Scored, cut, groups, tree
from igpo.tree.segments import Pack, Segment, depth, packs
from pipeline import cost, sections, stage, storage
from pipeline.errors import UserError, one_line
from retrieval.encoder.folder import UNREADABLE

HEAD = "value_head.st"


class Critic(torch.nn.Module):
    """A causal language model with attention "tree" and a value head, in fp32."""

    def __init__(self, folder: Path, checkpoint: bool = False):
        """Load the body, and the head if the folder has one.

        Raises UserError as `model.load` does, for a head too that is broken, of another shape or NaN.
        """
        super().__init__()
        self.body = load(folder, torch.float32, "tree").train()
        if checkpoint:
            save_memory(self.body)
        self.value = torch.nn.Linear(self.body.config.hidden_size, 1)
        for weight in self.value.parameters():
            torch.nn.init.zeros_(weight)
        if (folder / HEAD).exists():
            self._load_head(folder / HEAD)
        self.value.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.body.device

    def _load_head(self, path: Path) -> None:
        try:
            self.value.load_state_dict(load_file(path))
        except UNREADABLE as error:
            raise UserError(
                f"{path}: not a readable value head: {one_line(error, 300)}; "
                f"delete {path.parent} and make this critic again"
            ) from None
        check_finite(self.value.named_parameters(), path)

    def forward(self, packed: Pack) -> torch.Tensor:
        """Values (M,) ahead of a pack's target tokens."""
        with autocast(self.device.type):
            hidden_states = states(self.body, packed)
        return self.value(hidden_states.float())[:, 0]


def value_tree(group: list[Scored]) -> list[Segment]:
    """A group's segments, of which the first policy token of every turn is a target."""
    trajectories = []
    for trajectory in group:
        sizes = [(len(row["policy_ids"]), len(row["observation_ids"])) for row in trajectory.rows[1:]]
        starts = itertools.accumulate((sum(size) for size in sizes), initial=0)
        first_tokens = [start for start, (policy, _) in zip(starts, sizes, strict=False) if policy]
        trajectories.append(
            dataclasses.replace(trajectory, trunk=dataclasses.replace(trajectory.trunk, targets=first_tokens))
        )
    return tree(trajectories)


def returns(rollouts: Rows, scores: Rows, gamma: float) -> list[float]:
    """Discounted return of every turn that has policy tokens, in the order of the rows."""
    result = []
    for rows in joined(rollouts, scores=scores):
        turns = rows[1:]
        values = discounted([turn_reward(row, row is turns[-1]) for row in turns], gamma)
        result += [value for row, value in zip(turns, values, strict=True) if row["policy_ids"]]
    return result


def learn(
    critic: Critic, trees: list[list[Segment]], turn_returns: torch.Tensor, tokens: int
) -> torch.Tensor:
    """Add the gradient of 1/2 mean (V - return)^2 to the weights; returns the values, shape (M,).

    Of several processes each takes a share of the trees, and all have the values.
    """
    sizes = [sum(len(segment.targets) for segment in segments) for segments in trees]
    parts = turn_returns.split(sizes)
    numbers, idle = distributed.share(trees, tokens)
    values: dict[int, torch.Tensor] = {}
    rest = iter(numbers)
    for packed, count in packs([trees[i] for i in numbers], tokens, critic.device, "valued"):
        mine = list(itertools.islice(rest, count))
        predictions = critic(packed)
        target = torch.cat([parts[i] for i in mine]).to(predictions)
        (0.5 * (predictions - target).square().sum() / len(turn_returns)).backward()
        values |= zip(mine, predictions.detach().cpu().split([sizes[i] for i in mine]), strict=True)
    for _ in range(idle):
        distributed.idle_pass(critic)
    values_by_tree = {
        number: value for share in distributed.gathered(values) for number, value in share.items()
    }
    return torch.cat([values_by_tree[number] for number in range(len(trees))])


def fit(values: torch.Tensor, turn_returns: torch.Tensor) -> dict[str, float | None]:
    """The loss 1/2 mean (V - return)^2, and the share of the returns' variance that V explains.

    That share is at most 1, and None if all returns are equal.
    """
    error, variance = (values - turn_returns).square().mean().item(), turn_returns.var(correction=0).item()
    return {
        "value_loss": error / 2,
        "explained_variance": 1 - error / variance if variance > NO_SPREAD else None,
    }


def next_critic(critic: Critic, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Body and value head, whole and rounded to bf16; `folder` is that of the critic's own model.

    Of several processes the first has them, and all must call it.
    """
    head = distributed.whole_weights(critic.value)
    head = {name: weight.bfloat16().float() for name, weight in head.items()}
    if not distributed.is_sharded(critic):
        return critic.body.bfloat16(), head
    weights = distributed.whole_weights(critic.body)
    if not distributed.is_first():
        return None, head
    body = load(folder, torch.bfloat16, "tree")
    body.load_state_dict(weights, strict=False)  # tied weights have one name here
    return body, head


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--critic", type=Path, required=True, metavar="DIR", help="the last one, or a policy")
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--gamma", type=float, required=True, metavar="DISCOUNT", help="advantage.gamma")
    parser.add_argument("--values", type=Path, required=True, metavar="FILE", help="written: V of every turn")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the next critic")
    state_argument(parser)


def run(args: argparse.Namespace, params: sections.Critic) -> str:
    """Value the turns, then update the critic."""
    if not 0 <= args.gamma <= 1:
        raise UserError(f"--gamma: {args.gamma}: expected a number from 0 to 1")
    rollouts = storage.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = storage.read(args.scores, schema.SCORES).to_pylist()
    cost.note(tokens=schema.tokens(rollouts))
    turn_returns = torch.tensor(returns(rollouts, scores, args.gamma))
    if not len(turn_returns):
        raise UserError(f"{args.rollouts}: no turn to value: give the policy room (rollout.max_tokens)")
    trees = [value_tree(group) for group in cut(groups(rollouts), params.batch_tokens)]
    critic = Critic(args.critic, params.checkpoint)
    check_model(critic.body, max(depth(segment) for segments in trees for segment in segments))
    state = load_state(args.critic / STATE) if (args.critic / HEAD).exists() else {}
    check_state(state, critic, args.critic / STATE)
    distributed.shard_around(critic, critic.body)
    optimiser = open_optimiser(critic, state, params)
    values = learn(critic, trees, turn_returns, params.batch_tokens)
    norm = float(distributed.whole(torch.nn.utils.clip_grad_norm_(critic.parameters(), params.max_grad_norm)))
    if not math.isfinite(norm):
        raise UserError(f"the critic's gradient norm is {norm}: lower critic.lr or look at the scores")
    take_step(optimiser)
    distributed.check_size(critic, "critic.lr")
    metrics = fit(values, turn_returns)
    write(args, rollouts, values, critic, optimiser, metrics)
    explained_variance = metrics["explained_variance"]
    return (
        f"{len(values)} turns, mean value {values.mean():+.3f}, loss {metrics['value_loss']:.4f}, "
        f"explained variance {'unknown' if explained_variance is None else f'{explained_variance:+.3f}'}"
    )


def write(
    args: argparse.Namespace,
    rollouts: Rows,
    values: torch.Tensor,
    critic: Critic,
    optimiser: Any,
    metrics: dict[str, float | None],
) -> None:
    """Write the values, then the next critic with its manifest last.

    The first process does, and all must call it.
    """
    if distributed.is_first():
        begin(args.out)
    save_state(critic, optimiser, args.out / STATE, empty=args.no_state)
    body, head = next_critic(critic, args.critic)
    if not distributed.is_first():
        return
    numbers = iter(values.tolist())
    rows = [
        {name: row[name] for name in schema.TURN_KEY}
        | {"value": next(numbers) if row["policy_ids"] else None}
        for row in rollouts
        if row["turn"]
    ]
    inputs = {name: storage.sha256(getattr(args, name)) for name in ("rollouts", "scores")}
    storage.write(rows, schema.VALUES, args.values, schema.TURN_KEY, inputs)
    with storage.replacing(args.out / HEAD) as temporary:
        save_file(head, temporary)
    manifest = {"parents": [weights_sha256(args.critic)], "inputs": inputs, "metrics": metrics}
    save(body, load_tokenizer(args.critic), args.out, manifest)


main = stage.command(sections.Critic, arguments, over_processes("igpo.critic", run), __doc__)

if __name__ == "__main__":
    main()
