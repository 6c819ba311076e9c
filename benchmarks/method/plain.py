"""The other sides of the benchmarks, as one would write them first: plain transformers with SDPA."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from igpo.acting.engine import Generation, Request
from igpo.experiment.schema import Rows
from igpo.training.loss import Columns, policy_loss
from igpo.training.selection import TrainingGroup
from igpo.tree.forward import autocast
from igpo.tree.segments import Segment
from pipeline import sections


@torch.inference_mode()
def gold_by_turn(
    model: Any, rows: Rows, answer: tuple[list[int], list[int]]
) -> tuple[list[float], list[float]]:
    """Mean gold log-probability after turns 0…T-1 of a trajectory, one forward pass each; and its seconds.

    Logits are made for the answer scaffold only.
    """
    ids, indices = answer
    context: list[int] = []
    means, seconds = [], []
    for row in rows[:-1]:
        context += row["policy_ids"] + row["observation_ids"]
        start = time.perf_counter()
        output = model(torch.tensor([context + ids], device=model.device), logits_to_keep=len(ids) + 1)
        logprobs = output.logits[0].double().log_softmax(-1)  # in fp32 its sums are off by 1e-5 on a CPU
        means.append(sum(float(logprobs[i, ids[i]]) for i in indices) / len(indices))
        seconds.append(time.perf_counter() - start)
    return means, seconds


def logprobs(model: Any, segments: list[Segment]) -> torch.Tensor:
    """Log-probabilities of a trajectory's policy tokens (M,), full logits; segments from prompt to end."""
    ids = torch.tensor([token for segment in segments for token in segment.ids], device=model.device)
    rows = torch.tensor(segments[-1].targets, device=model.device) + len(ids) - len(segments[-1].ids)
    # log_softmax in fp32 would put 5e-5 of relative error into the gradient on a CPU.
    return model(ids[None]).logits[0].double().log_softmax(-1)[rows - 1, ids[rows]]


def padded(sequences: Sequence[Sequence[int]], side: str, device: torch.device) -> dict[str, torch.Tensor]:
    """Token ids and attention mask of sequences, padded on one side to the longest."""
    ids = [torch.tensor(sequence, device=device) for sequence in sequences]
    mask = [torch.ones_like(sequence) for sequence in ids]
    names = {"input_ids": ids, "attention_mask": mask}
    return {name: pad_sequence(part, batch_first=True, padding_side=side) for name, part in names.items()}


def padded_logprobs(model: Any, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log-probabilities of all tokens but the first, (sequences, longest - 1), full logits."""
    batch = padded(sequences, "right", model.device)
    logits = model(**batch).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]


@torch.inference_mode()
def old_logprobs(model: Any, rows: Rows) -> list[float]:
    """Log-probabilities of all tokens of a trajectory but the first, one forward pass with full logits."""
    ids = [token for row in rows for token in row["policy_ids"] + row["observation_ids"]]
    return padded_logprobs(model, [ids])[0].tolist()


def padded_gradient(
    model: Any, trajectories: list[TrainingGroup], batch: int, params: sections.Train
) -> None:
    """Add the loss's gradient, `batch` trajectories padded to the longest and full logits at a time.

    Every group holds one trajectory: its segments from prompt to end.
    """
    for low in range(0, len(trajectories), batch):
        part = trajectories[low : low + batch]
        sequences = [[token for s in group.segments for token in s.ids] for group in part]
        with autocast(model.device.type):
            logprobs = padded_logprobs(model, sequences)
        losses = []
        for number, group in enumerate(part):
            first = sum(len(segment.ids) for segment in group.segments[:-1])
            indices = torch.tensor(group.segments[-1].targets, device=model.device)
            columns, spans = Columns(*group.columns.to(model.device)), group.spans.to(model.device)
            token_logprobs = logprobs[number, indices + first - 1]
            losses.append((policy_loss(token_logprobs, columns, spans, params).loss * columns.weights).sum())
        torch.stack(losses).sum().backward()


def padded_update(
    model: Any, optimiser: torch.optim.Optimizer, trajectories: list[TrainingGroup], params: sections.Train
) -> None:
    """One optimiser step, two padded trajectories at a time."""
    optimiser.zero_grad()
    padded_gradient(model, trajectories, 2, params)
    torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)
    optimiser.step()


class Generate:
    """transformers' `generate` over the whole padded batch as an engine; it tells no log-probabilities."""

    def __init__(self, model: Any, tokenizer: Any):
        """Take a loaded model."""
        self.model, self.end = model, tokenizer.eos_token_id

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], max_new: int, temperature: float, stops: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue every prompt by at most `max_new` tokens, up to the end of the turn."""
        batch = padded([request.prompt for request in requests], "left", self.model.device)
        output = self.model.generate(
            **batch,
            max_new_tokens=max_new,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        generations = []
        for ids in output[:, batch["input_ids"].shape[1] :].tolist():
            length = ids.index(self.end) + 1 if self.end in ids else len(ids)
            generations.append(Generation(ids[:length], [], self.end in ids))
        return generations


def vllm_generate(
    llm: Any, requests: Sequence[tuple[Sequence[int], int | None]], lengths: Sequence[int]
) -> None:
    """vLLM's own generation of exactly so many tokens after each prompt, which may have a seed."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(prompt)} for prompt, _ in requests]
    params = [
        SamplingParams(temperature=1.0, max_tokens=length, ignore_eos=True, seed=seed)
        for (_, seed), length in zip(requests, lengths, strict=True)
    ]
    llm.generate(prompts, params, use_tqdm=False)
