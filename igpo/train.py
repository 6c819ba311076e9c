"""One policy update: `policy, rollouts, scores, advantages -> policy folder`.

Weights and AdamW's state live in fp32; the passes run in bf16 where the machine is fast at it. The folder
holds the bf16 policy, and in `training_state.st` what bf16 drops of every weight and the optimiser's
moments (in bf16), from which the next update goes on. Groups are packed without padding and share their
prompt; only policy tokens have a loss.
"""

import argparse
import itertools
import logging
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from igpo import schema
from igpo.loss import Terms, policy_loss, token_weights
from igpo.model import STATE, load, load_tokenizer, save, weights_sha256
from igpo.packing import Segment, check_model, depth, logprobs, packs
from igpo.schema import trajectories, turn_key
from igpo.score import cut, groups, tree
from retrieval import stage, tables
from retrieval.encoder import compute_dtype
from retrieval.stage import UserError

log = logging.getLogger("igpo")


def open_training(folder: Path, params: SimpleNamespace) -> tuple[Any, torch.optim.AdamW]:
    """The policy in fp32 and its optimiser, both as the last update left them."""
    model = load(folder, torch.float32, "tree").train()
    if params.checkpoint:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    named = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        named.values(), lr=params.lr, betas=(0.9, 0.999), weight_decay=params.weight_decay, fused=True
    )
    if (folder / STATE).exists():
        state = load_file(folder / STATE)
        for name, weight in named.items():
            weight.data += state[f"rest.{name}"].to(weight.device)
            optimiser.state[weight] = {
                "step": state["step"].clone(),
                "exp_avg": state[f"exp_avg.{name}"].to(weight),
                "exp_avg_sq": state[f"exp_avg_sq.{name}"].to(weight),
            }
    return model, optimiser


def autocast(device: str) -> torch.autocast:
    """bf16 passes over fp32 weights, where the machine is fast at it."""
    return torch.autocast(device, torch.bfloat16, enabled=compute_dtype() is torch.bfloat16)


def save_state(model: Any, optimiser: torch.optim.AdamW, path: Path) -> None:
    """Write the weights' rest below bf16 and AdamW's moments."""
    state: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters():
        kept = optimiser.state[weight]
        state["step"] = kept["step"].cpu()
        state[f"rest.{name}"] = (weight.data - weight.data.bfloat16().float()).bfloat16().cpu()
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{moment}.{name}"] = kept[moment].bfloat16().cpu()
    with tables.replacing(path) as temporary:
        save_file(state, temporary)


def training_trees(
    rollouts: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    credits: list[dict[str, Any]],
    aggregation: str,
    tokens: int,
) -> list[tuple[list[Segment], torch.Tensor]]:
    """(segments, columns) per group, or per trajectory of a group beyond `tokens` tokens.

    columns (4, M): old, reference, advantage, weight per policy token.
    """
    lengths = [sum(len(row["policy_ids"]) for row in rows) for rows in trajectories(rollouts)]
    weights = iter(token_weights(lengths, aggregation))
    advantage = {turn_key(row): row["advantage"] for row in credits}
    score = {turn_key(row): row for row in scores}
    trees = []
    for group in cut(groups(rollouts), tokens):
        columns: list[list[float]] = [[], [], [], []]
        for trajectory in group:
            weight = next(weights)
            for row in trajectory.rows[1:]:
                key, length = turn_key(row), len(row["policy_ids"])
                if key not in advantage or len(score[key]["old_logprobs"]) != length:
                    raise UserError(f"advantages, scores: turn {key} of the rollouts is missing or differs")
                columns[0] += score[key]["old_logprobs"]
                columns[1] += score[key]["ref_logprobs"]
                columns[2] += [advantage[key]] * length
                columns[3] += [weight] * length
        trees.append((tree(group), torch.tensor(columns)))
    return trees


def accumulate(
    model: Any, trees: list[tuple[list[Segment], torch.Tensor]], params: SimpleNamespace
) -> tuple[float, list[Terms]]:
    """Add the gradient of the batch's loss to the weights, a token budget at a time; returns loss, terms."""
    loss, terms, columns = 0.0, [], iter([values for _, values in trees])
    segments = [listed for listed, _ in trees]
    for packed, count in packs(segments, params.batch_tokens, model.device, "trained on"):
        values = torch.cat(list(itertools.islice(columns, count)), 1).to(model.device)
        with autocast(model.device.type):
            chosen = logprobs(model, packed)
        old, reference, advantage, weight = values
        term = policy_loss(chosen, old, reference, advantage, (params.clip_low, params.clip_high), params.kl)
        part = (term.loss * weight).sum()
        part.backward()
        loss += part.item()
        terms.append(Terms(*(value.detach() for value in term)))
    return loss, terms


def update(model: Any, optimiser: torch.optim.AdamW, trees: Any, params: SimpleNamespace) -> dict[str, float]:
    """One optimiser step on the whole batch; returns its metrics."""
    optimiser.zero_grad()
    loss, terms = accumulate(model, trees, params)
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm))
    if not math.isfinite(norm):
        raise UserError(f"the gradient norm is {norm}: lower train.lr or look at the scores")
    optimiser.step()
    kl, ratio = (torch.cat([getattr(term, name) for term in terms]) for name in ("kl", "ratio"))
    clipped = torch.cat([term.clipped for term in terms]).float()
    return {
        "loss": loss,
        "grad_norm": norm,
        "kl": kl.mean().item(),
        "ratio_mean": ratio.mean().item(),
        "ratio_max": ratio.max().item(),
        "clip_fraction": clipped.mean().item(),
        "policy_tokens": len(kl),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    for name in ("rollouts", "scores", "advantages"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Update the policy `params.updates` times on the same batch and write the next one."""
    rollouts = tables.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    scores = tables.read(args.scores, schema.SCORES).to_pylist()
    credits = tables.read(args.advantages, schema.ADVANTAGES).to_pylist()
    trees = training_trees(rollouts, scores, credits, params.aggregation, params.batch_tokens)
    torch.manual_seed(0)
    model, optimiser = open_training(args.policy, params)
    check_model(model, max(depth(segment) for segments, _ in trees for segment in segments))
    metrics = [update(model, optimiser, trees, params) for _ in range(params.updates)][-1]
    args.out.mkdir(parents=True, exist_ok=True)
    save_state(model, optimiser, args.out / STATE)
    parent = tables.read_json(args.policy / "policy.json") if (args.policy / "policy.json").exists() else {}
    manifest = {
        "source": parent.get("source", str(args.policy)),
        "iteration": parent.get("iteration", 0) + 1,
        "parents": [weights_sha256(args.policy)],
        "inputs": {name: tables.sha256(getattr(args, name)) for name in ("rollouts", "scores", "advantages")},
        "metrics": metrics,
    }
    save(model.bfloat16(), load_tokenizer(args.policy), args.out, manifest)
    return f"loss {metrics['loss']:+.4f}, gradient norm {metrics['grad_norm']:.3f}, KL {metrics['kl']:.5f}"


main = stage.command("train", arguments, run, __doc__)

if __name__ == "__main__":
    main()
