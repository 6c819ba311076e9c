"""One policy update: `policy, rollouts, scores, advantages -> policy folder`.

Weights and AdamW's state live in fp32, over several processes a share in each; the passes run in bf16 where
the machine is fast at it. The folder holds the bf16 policy and the state from which the next update goes on
(`igpo/training_state.py`). Groups are packed without padding and share their
prompt; only policy tokens have a loss.
"""

import argparse
import itertools
import logging
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from igpo import distributed, lora, schema
from igpo.allocator import save_memory
from igpo.loss import Columns, Terms, policy_loss, token_weights
from igpo.model import STATE, begin, load, load_tokenizer, save, weights_sha256
from igpo.packing import Segment, depth, packs
from igpo.schema import Rows, trajectories, turn_key
from igpo.training_state import check_state, load_state, open_optimiser, save_state, state_argument, take_step
from igpo.tree_pass import autocast, check_model
from igpo.trees import cut, groups, tree
from retrieval import stage, tables
from retrieval.errors import UserError

log = logging.getLogger("igpo")
LOGPROBS = ("old_logprobs", "ref_logprobs")


def open_training(folder: Path, params: SimpleNamespace, longest: int = 0) -> tuple[Any, torch.optim.AdamW]:
    """The policy in fp32 and its optimiser, both as the last update left them, for up to `longest` tokens.

    Raises UserError as `model.load`, `check_model` and `check_state` do, and for another `params.lora` than
    before.
    """
    state = load_state(folder / STATE)
    if state and lora.rank_of(state) != params.lora:
        raise UserError(
            f"{folder / STATE}: was trained with train.lora {lora.rank_of(state) or 'null'}, not "
            f"{params.lora or 'null'}: keep one value for all iterations of an arm"
        )
    model = load(folder, torch.float32, "tree").train()
    check_model(model, longest)
    if params.lora:
        lora.adapt(model, params.lora)
    check_state(state, model, folder / STATE)
    if params.lora:
        lora.restore(model, state)
    if params.checkpoint:
        save_memory(model)
    distributed.shard(model)
    return model, open_optimiser(model, state, params)


def next_policy(model: Any, folder: Path) -> Any:
    """The model in bf16 as `folder` has it, whole and with its adapters merged.

    Of several processes the first has it, and all must call it.
    """
    if not (distributed.is_sharded(model) or lora.is_adapted(model)):
        return model.bfloat16()
    weights = lora.merged(distributed.whole_weights(model))
    if not distributed.is_first():
        return None
    policy = load(folder, torch.bfloat16, "tree")
    policy.load_state_dict(weights, strict=False)  # tied weights have one name here
    return policy


@dataclass
class TrainingGroup:
    """A question's trajectories: their tokens, and for the M policy tokens among them what the loss needs."""

    segments: list[Segment]
    columns: torch.Tensor  # (5, M): the fields of `loss.Columns`
    spans: torch.Tensor  # numbers of consecutive policy tokens that share a ratio


def counted(rollouts: Rows, scores: Rows, params: SimpleNamespace) -> Rows:
    """The rollouts that have a loss: all, or those of questions whose outcomes differ.

    The latter with `drop_equal_groups`, DAPO's filter (arXiv:2503.14476).
    """
    if not params.drop_equal_groups:
        return rollouts
    outcomes: dict[str, set[float]] = defaultdict(set)
    for row in scores:
        if row["outcome"] is not None:
            outcomes[row["question_id"]].add(row["outcome"])
    return [row for row in rollouts if len(outcomes[row["question_id"]]) > 1]


def dropped(rollouts: Rows, kept: Rows) -> dict[str, float]:
    """Numbers of groups, and of policy tokens in them, that are not in `kept`."""
    names = {row["question_id"] for row in kept}
    rest = [row for row in rollouts if row["question_id"] not in names]
    return {
        "dropped_groups": len({row["question_id"] for row in rest}),
        "dropped_tokens": sum(len(row["policy_ids"]) for row in rest),
    }


def minibatches(rollouts: Rows, number: int) -> list[Rows]:
    """The rollouts in `number` parts of whole questions, or in one for each question if there are fewer.

    Ids begin with a question's type. Each part takes every `number`-th id, so it has a share of all types.
    """
    names = sorted({row["question_id"] for row in rollouts})
    part = {name: place % number for place, name in enumerate(names)}
    numbers = range(min(number, len(names)))
    return [[row for row in rollouts if part[row["question_id"]] == wanted] for wanted in numbers]


def summed_up(steps: list[dict[str, float]]) -> dict[str, float]:
    """The metrics of several optimiser steps as one: tokens are summed, the rest are means over tokens."""
    tokens = sum(step["policy_tokens"] for step in steps)
    means = {
        name: sum(step[name] * step["policy_tokens"] for step in steps) / tokens
        for name in steps[0]
        if name not in ("policy_tokens", "ratio_max")
    }
    return means | {"ratio_max": max(step["ratio_max"] for step in steps), "policy_tokens": tokens}


def clip_scale(credit: dict[str, Any], last: bool, spread: float) -> float:
    """A2TGPO's c = 1 + spread (2 sigmoid(z) - 1) of a search turn's normalised reward z; 1 for the answer."""
    return 1.0 if last else 1 + spread * math.tanh(credit["normalised"] / 2)  # = 2 sigmoid(z) - 1


def training_groups(
    rollouts: Rows, scores: Rows, credits: Rows, params: SimpleNamespace
) -> list[TrainingGroup]:
    """The batch's groups that have policy tokens, those beyond `batch_tokens` cut into trajectories.

    Raises UserError where a turn has no scores or advantage.
    """
    sizes = [sum(len(row["policy_ids"]) for row in rows) for rows in trajectories(rollouts)]
    weights = iter(token_weights(sizes, params.aggregation, params.norm_tokens))
    credit = {turn_key(row): row for row in credits}
    score = {turn_key(row): row for row in scores}
    result = []
    for group in cut(groups(rollouts), params.batch_tokens):
        columns: list[list[float]] = [[] for _ in Columns._fields]
        spans: list[int] = []
        for trajectory in group:
            weight, turns = next(weights), trajectory.rows[1:]
            for row in turns:
                key, length = turn_key(row), len(row["policy_ids"])
                known = key in credit and key in score and credit[key]["advantage"] is not None
                if not known or {len(score[key][name] or []) for name in LOGPROBS} != {length}:
                    raise UserError(f"advantages, scores: turn {key} of the rollouts is missing or differs")
                scale = clip_scale(credit[key], row is turns[-1], params.clip_scale)
                columns[0] += score[key]["old_logprobs"]
                columns[1] += score[key]["ref_logprobs"]
                for column, value in zip(columns[2:], (credit[key]["advantage"], weight, scale), strict=True):
                    column += [value] * length
            lengths = [len(row["policy_ids"]) for row in turns]
            spans += {"token": [1] * sum(lengths), "turn": lengths, "sequence": [sum(lengths)]}[params.ratio]
        if spans:
            result.append(
                TrainingGroup(tree(group), torch.tensor(columns), torch.tensor(spans, dtype=torch.long))
            )
    return result


def accumulate(model: Any, batch: list[TrainingGroup], params: SimpleNamespace) -> tuple[float, list[Terms]]:
    """Add the gradient of the batch's loss to the weights, a token budget at a time; returns loss, terms.

    A trajectory stays whole, so no ratio is cut. Of several processes each takes a share of the groups.
    """
    numbers, idle = distributed.share([group.segments for group in batch], params.batch_tokens)
    loss, terms, rest = 0.0, [], iter(batch[number] for number in numbers)
    segments = [batch[number].segments for number in numbers]
    for packed, count in packs(segments, params.batch_tokens, model.device, "trained on"):
        part = list(itertools.islice(rest, count))
        columns = Columns(*torch.cat([group.columns for group in part], 1).to(model.device))
        spans = torch.cat([group.spans for group in part]).to(model.device)
        with autocast(model.device.type):
            found = distributed.logprobs_of(model, packed, entropy=params.entropy > 0)
        chosen, entropies = found if params.entropy else (found, 0.0)
        term = policy_loss(chosen, columns, spans, params)
        part_loss = ((term.loss - params.entropy * entropies) * columns.weights).sum()
        part_loss.backward()
        loss += part_loss.item()
        terms.append(Terms(*(value.detach().cpu() for value in term)))
    for _ in range(idle):
        distributed.idle_pass(model)
    return loss, terms


def update(
    model: Any, optimiser: torch.optim.AdamW, batch: list[TrainingGroup], params: SimpleNamespace
) -> dict[str, float]:
    """One optimiser step on the whole batch; returns its metrics."""
    losses, terms = zip(*distributed.gathered(accumulate(model, batch, params)), strict=True)
    norm = float(distributed.whole(torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)))
    if not math.isfinite(norm):
        raise UserError(f"the gradient norm is {norm}: lower train.lr or look at the scores")
    take_step(optimiser)
    distributed.check_size(model, "train.lr")
    kl, ratio, clipped = (
        torch.cat([getattr(term, name) for part in terms for term in part])
        for name in ("kl", "ratio", "clipped")
    )
    return {
        "loss": sum(losses),
        "grad_norm": norm,
        "kl": kl.mean().item(),
        "ratio_mean": ratio.mean().item(),
        "ratio_max": ratio.max().item(),
        "clip_fraction": clipped.float().mean().item(),
        "policy_tokens": len(kl),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    for name in ("rollouts", "scores", "advantages"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    state_argument(parser)


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Go over the batch `params.updates` times, in `params.minibatches` steps each; write the next policy."""
    rollouts = tables.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = tables.read(args.scores, schema.SCORES).to_pylist()
    credits = tables.read(args.advantages, schema.ADVANTAGES).to_pylist()
    if not rollouts:
        raise UserError(f"{args.rollouts}: no rows")
    kept = counted(rollouts, scores, params)
    left_out = dropped(rollouts, kept) if params.drop_equal_groups else {}
    if left_out and not kept:
        if distributed.is_first():
            write_unchanged(args, {"policy_tokens": 0, **left_out})
        return f"no update: the outcomes of all {left_out['dropped_groups']} groups are equal"
    parts = [training_groups(rows, scores, credits, params) for rows in minibatches(kept, params.minibatches)]
    parts = [part for part in parts if part]
    if not parts:
        if distributed.is_first():
            write_unchanged(args, {"policy_tokens": 0, **left_out})
        return "no update: the rollouts hold no policy token"
    torch.manual_seed(0)
    longest = max(depth(segment) for part in parts for group in part for segment in group.segments)
    model, optimiser = open_training(args.policy, params, longest)
    steps = []
    for number, part in enumerate(parts * params.updates):
        steps.append(update(model, optimiser, part, params))
        log.info(
            "step %d of %d: loss %+.4f, ratio %.4f on average and %.4f at most, clip fraction %.4f",
            *(number + 1, len(parts) * params.updates),
            *(steps[-1][name] for name in ("loss", "ratio_mean", "ratio_max", "clip_fraction")),
        )
    metrics = summed_up(steps[-len(parts) :])
    if distributed.is_first():
        begin(args.out)
    save_state(model, optimiser, args.out / STATE, empty=args.no_state)
    policy = next_policy(model, args.policy)
    if distributed.is_first():
        write_policy(args, policy, metrics | left_out)
    return f"loss {metrics['loss']:+.4f}, gradient norm {metrics['grad_norm']:.3f}, KL {metrics['kl']:.5f}"


def write_unchanged(args: argparse.Namespace, metrics: dict[str, float]) -> None:
    """Write the policy and its state as they were: a step without a gradient would decay the weights."""
    begin(args.out)
    with tables.replacing(args.out / STATE) as temporary:
        save_file({} if args.no_state else load_state(args.policy / STATE), temporary)
    write_policy(args, load(args.policy, torch.bfloat16, "tree"), metrics)


def write_policy(args: argparse.Namespace, policy: Any, metrics: dict[str, float]) -> None:
    """Write the next policy's folder, manifest last."""
    parent = tables.read_json(args.policy / "policy.json") if (args.policy / "policy.json").exists() else {}
    manifest = {
        "source": parent.get("source", str(args.policy)),
        "iteration": parent.get("iteration", 0) + 1,
        "parents": [weights_sha256(args.policy)],
        "inputs": {name: tables.sha256(getattr(args, name)) for name in ("rollouts", "scores", "advantages")},
        "metrics": metrics,
    }
    save(policy, load_tokenizer(args.policy), args.out, manifest)


main = stage.command("train", arguments, distributed.over_processes("igpo.train", run), __doc__)

if __name__ == "__main__":
    main()
