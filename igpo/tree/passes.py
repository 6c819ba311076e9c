"""Log-probabilities of the target tokens of token trees: from packed passes, or one plain pass for each."""

from pathlib import Path
from typing import Any

import torch

from igpo.experiment.policy import load
from igpo.training import distributed
from igpo.tree.forward import autocast, check_context, check_model
from igpo.tree.segments import Segment, depth, flatten, packs
from pipeline.errors import UserError


@torch.inference_mode()
def run_model(
    folder: Path, trees: list[list[Segment]], tokens: int, dtype: torch.dtype
) -> dict[int, list[float]]:
    """Log-probabilities of every segment's target tokens, by `id(segment)`.

    As in training the weights are in fp32, and only products of matrices in `dtype`: with all of it in bf16
    the first update's ratios would be further from 1.
    """
    model = load(folder, torch.float32, "tree").eval()
    segments = flatten(trees)
    check_ids(model, segments)
    check_model(model, max(depth(segment) for segment in segments))
    distributed.shard(model)
    numbers, idle = distributed.share(trees, tokens)
    values: dict[int, list[float]] = {}
    for packed, _ in packs([trees[number] for number in numbers], tokens, model.device, "scored"):
        with autocast(model.device.type, dtype):
            parts = packed.split(distributed.logprobs_of(model, packed))
        values |= {id(segment): part.tolist() for segment, part in zip(packed.segments, parts, strict=True)}
    for _ in range(idle):
        distributed.idle_pass(model)
    place = {id(segment): number for number, segment in enumerate(segments)}
    shares = distributed.gathered({place[name]: segment_values for name, segment_values in values.items()})
    return {
        id(segments[number]): segment_values for share in shares for number, segment_values in share.items()
    }


@torch.inference_mode()
def run_naive(folder: Path, trees: list[list[Segment]], dtype: torch.dtype) -> dict[int, list[float]]:
    """The same by one plain forward pass per segment: slow, for comparison and for any kind of layer."""
    model = load(folder, dtype, "sdpa").eval()
    segments = flatten(trees)
    check_ids(model, segments)
    check_context(model, max(depth(segment) for segment in segments))
    values: dict[int, list[float]] = {}
    for segment in segments:
        indices = torch.tensor(segment.targets, dtype=torch.long)
        ids = torch.tensor(segment.path_ids())
        at = indices + len(ids) - len(segment.ids)
        values[id(segment)] = _following(model, ids, at).tolist() if len(at) else []
    return values


def check_ids(model: Any, segments: list[Segment]) -> None:
    """Raise UserError for a token id that the model doesn't have: the rollouts are of another one."""
    vocabulary = range(model.get_input_embeddings().num_embeddings)
    wrong = next((i for segment in segments for i in segment.ids if i not in vocabulary), None)
    if wrong is not None:
        raise UserError(
            f"rollouts: token id {wrong} is none of the {len(vocabulary)} of {model.name_or_path}"
        )


def _following(model: Any, ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the tokens at places `at` of one sequence."""
    logits = model(ids[None].to(model.device), logits_to_keep=(at - 1).to(model.device)).logits[0].float()
    return logits.log_softmax(-1).cpu().gather(1, ids[at][:, None])[:, 0]
