"""The other sides of the benchmarks, as one would write them first: plain transformers with SDPA."""

import time
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from igpo.loss import Columns, policy_loss
from igpo.packing import Segment
from igpo.schema import Rows
from igpo.train import TrainingGroup, autocast


@torch.inference_mode()
def gold_by_turn(
    model: Any, rows: Rows, forced: tuple[list[int], list[int]]
) -> tuple[list[float], list[float]]:
    """Mean gold log-probability after turns 0…T-1 of a trajectory, one forward pass each; and its seconds.

    Logits are made for the answer scaffold only.
    """
    ids, wanted = forced
    context: list[int] = []
    means, seconds = [], []
    for row in rows[:-1]:
        context += row["policy_ids"] + row["observation_ids"]
        start = time.perf_counter()
        output = model(torch.tensor([context + ids]), logits_to_keep=len(ids) + 1)
        logprobs = output.logits[0].double().log_softmax(-1)  # in fp32 its sums are off by 1e-5 on a CPU
        means.append(sum(float(logprobs[i, ids[i]]) for i in wanted) / len(wanted))
        seconds.append(time.perf_counter() - start)
    return means, seconds


def logprobs(model: Any, segments: list[Segment]) -> torch.Tensor:
    """Log-probabilities of a trajectory's policy tokens (M,), full logits; segments from prompt to end."""
    ids = torch.tensor([token for segment in segments for token in segment.ids])
    rows = torch.tensor(segments[-1].wanted) + len(ids) - len(segments[-1].ids)
    # log_softmax in fp32 would put 5e-5 of relative error into the gradient on a CPU.
    return model(ids[None]).logits[0].double().log_softmax(-1)[rows - 1, ids[rows]]


def padded_gradient(
    model: Any, trajectories: list[TrainingGroup], batch: int, params: SimpleNamespace
) -> None:
    """Add the loss's gradient, `batch` trajectories padded to the longest and full logits at a time.

    Every group holds one trajectory: its segments from prompt to end.
    """
    for low in range(0, len(trajectories), batch):
        part = trajectories[low : low + batch]
        sequences = [torch.tensor([token for s in group.segments for token in s.ids]) for group in part]
        ids = pad_sequence(sequences, batch_first=True)
        mask = pad_sequence([torch.ones_like(sequence) for sequence in sequences], batch_first=True)
        with autocast(model.device.type):
            logits = model(input_ids=ids, attention_mask=mask).logits
        logprobs = logits[:, :-1].float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        losses = []
        for number, group in enumerate(part):
            first = sum(len(segment.ids) for segment in group.segments[:-1])
            chosen = logprobs[number, torch.tensor(group.segments[-1].wanted) + first - 1]
            columns = Columns(*group.columns)
            losses.append((policy_loss(chosen, columns, group.spans, params).loss * columns.weights).sum())
        torch.stack(losses).sum().backward()
