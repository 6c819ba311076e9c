"""One policy update: `policy, rollouts, scores, advantages -> policy folder`.

Weights and AdamW's state live in fp32, over several processes a share in each; the passes run in bf16 if the
machine is fast at it. The folder holds the bf16 policy and the state from which the next update goes on
(`igpo/training/checkpoint.py`). Groups are packed without padding and share their prompt; only policy tokens
have a loss.
"""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from igpo.experiment import schema
from igpo.experiment.policy import STATE, begin, load, load_tokenizer, save, weights_sha256
from igpo.training import distributed, lora
from igpo.training.checkpoint import (
    check_state,
    load_state,
    open_optimiser,
    save_state,
    state_argument,
    take_step,
)
from igpo.training.launch import over_processes
from igpo.training.loss import Columns, Terms, policy_loss
from igpo.training.memory import save_memory
from igpo.training.selection import TrainingGroup, counted, dropped, minibatches, training_groups
from igpo.tree.forward import autocast, check_model
from igpo.tree.segments import depth, packs
from pipeline import cost, sections, stage, storage
from pipeline.errors import UserError
from pipeline.log import log


def open_training(folder: Path, params: sections.Train, longest: int = 0) -> tuple[Any, torch.optim.AdamW]:
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


def summed_up(steps: list[dict[str, float]]) -> dict[str, float]:
    """The metrics of several optimiser steps as one: tokens are summed, the rest are means over tokens."""
    tokens = sum(step["policy_tokens"] for step in steps)
    means = {
        name: sum(step[name] * step["policy_tokens"] for step in steps) / tokens
        for name in steps[0]
        if name not in ("policy_tokens", "ratio_max")
    }
    return means | {"ratio_max": max(step["ratio_max"] for step in steps), "policy_tokens": tokens}


def accumulate(model: Any, batch: list[TrainingGroup], params: sections.Train) -> tuple[float, list[Terms]]:
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
            output = distributed.logprobs_of(model, packed, entropy=params.entropy > 0)
        logprobs, entropies = output if params.entropy else (output, 0.0)
        term = policy_loss(logprobs, columns, spans, params)
        part_loss = ((term.loss - params.entropy * entropies) * columns.weights).sum()
        part_loss.backward()
        loss += part_loss.item()
        terms.append(Terms(*(value.detach().cpu() for value in term)))
    for _ in range(idle):
        distributed.idle_pass(model)
    return loss, terms


def update(
    model: Any, optimiser: torch.optim.AdamW, batch: list[TrainingGroup], params: sections.Train
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


def run(args: argparse.Namespace, params: sections.Train) -> str:
    """Go over the batch `params.updates` times, in `params.minibatches` steps each; write the next policy."""
    rollouts = storage.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = storage.read(args.scores, schema.SCORES).to_pylist()
    credits = storage.read(args.advantages, schema.ADVANTAGES).to_pylist()
    if not rollouts:
        raise UserError(f"{args.rollouts}: no rows")
    cost.note(tokens=schema.tokens(rollouts))
    training_rows = counted(rollouts, scores, params)
    left_out = dropped(rollouts, training_rows) if params.drop_equal_groups else {}
    if left_out and not training_rows:
        if distributed.is_first():
            write_unchanged(args, {"policy_tokens": 0, **left_out})
        return f"no update: the outcomes of all {left_out['dropped_groups']} groups are equal"
    parts = [
        training_groups(rows, scores, credits, params)
        for rows in minibatches(training_rows, params.minibatches)
    ]
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
    with storage.replacing(args.out / STATE) as temporary:
        save_file({} if args.no_state else load_state(args.policy / STATE), temporary)
    write_policy(args, load(args.policy, torch.bfloat16, "tree"), metrics)


def write_policy(args: argparse.Namespace, policy: Any, metrics: dict[str, float]) -> None:
    """Write the next policy's folder, manifest last."""
    parent = storage.read_json(args.policy / "policy.json") if (args.policy / "policy.json").exists() else {}
    manifest = {
        "source": parent.get("source", str(args.policy)),
        "iteration": parent.get("iteration", 0) + 1,
        "parents": [weights_sha256(args.policy)],
        "inputs": {
            name: storage.sha256(getattr(args, name)) for name in ("rollouts", "scores", "advantages")
        },
        "metrics": metrics,
    }
    save(policy, load_tokenizer(args.policy), args.out, manifest)


main = stage.command(sections.Train, arguments, over_processes("igpo.train", run), __doc__)

if __name__ == "__main__":
    main()
