"""What an update leaves to the next one beside the policy: `training_state.st`, and the optimiser it makes.

Of each weight the file holds the bits that the folder's bf16 drops (int16) and AdamW's moments: the first in
bf16, the second in fp32, since a step changes it by a thousandth, less than bf16 can tell. Of a model with
LoRA it holds the adapters with their moments in fp32, and the weights that they are added to.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from igpo.training import distributed, lora
from pipeline import cost, sections, storage
from pipeline.errors import UserError, one_line
from retrieval.encoder.folder import UNREADABLE

MOMENTS = {"exp_avg": torch.bfloat16, "exp_avg_sq": torch.float32}


def state_argument(parser: argparse.ArgumentParser) -> None:
    """The option of a stage that updates weights for the last time."""
    parser.add_argument("--no-state", action="store_true", help="no update follows: leave its state empty")


def load_state(path: Path) -> lora.State:
    """The tensors of a state by their names; none if there is no file. UserError if it is broken."""
    try:
        return load_file(path) if path.exists() else {}
    except UNREADABLE as error:
        raise _unusable(path, one_line(error, 300)) from None


def check_state(state: lora.State, model: Any, path: Path) -> None:
    """Raise UserError unless a state, read from `path`, has the names and shapes that the model's would have.

    A weight that never had a gradient has no moments.
    """
    has_lora = lora.is_adapted(model)
    expected_shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in model.named_parameters():
        empty = weight.data.to("meta")
        moments = {f"{key}.{name}": empty for key in MOMENTS}
        has_moments = not moments.keys().isdisjoint(state)
        entries = moments if has_moments else {}
        if has_lora:
            entries = entries | lora.entry(name, empty)
        elif has_moments:
            entries = entries | {f"rest.{name}": empty}
        expected_shapes |= {key: tuple(entry.shape) for key, entry in entries.items()}
        expected_shapes |= {"step": ()} if has_moments else {}
    shapes = {key: tuple(entry.shape) for key, entry in state.items()}
    for key in sorted(shapes.keys() | expected_shapes.keys()) if state else ():
        if shapes.get(key) != expected_shapes.get(key):
            here, there = (values.get(key, "none") for values in (shapes, expected_shapes))
            raise _unusable(path, f"{key} has shape {here}, expected {there}")


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: not a usable training state: {reason}; delete {path.parent} and make it again")


def rest(value: torch.Tensor) -> torch.Tensor:
    """What bf16 drops of fp32 values: the difference of their bits, int16.

    A value midway between two of bf16 may come back one unit of its last place off.
    """
    bf16_value = value.bfloat16().float()
    return (value.view(torch.int32) - bf16_value.view(torch.int32)).clamp(max=2**15 - 1).short()


def restore(weight: torch.Tensor, remainder: torch.Tensor) -> None:
    """Put back in place what `rest` found: of a weight in fp32, a shard's part of it."""
    bits = distributed.local(weight).view(torch.int32)
    bits += distributed.local(distributed.placed_like(remainder, weight)).int()


def open_optimiser(
    model: Any, state: lora.State, params: sections.Train | sections.Critic
) -> torch.optim.AdamW:
    """AdamW over the model's weights, both as the last update left them in `state`."""
    weights = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        weights.values(), lr=params.lr, betas=(0.9, 0.999), weight_decay=params.weight_decay, fused=True
    )
    for name, weight in weights.items():
        if f"rest.{name}" in state:
            restore(weight.data, state[f"rest.{name}"])
        if f"exp_avg.{name}" in state:  # else it never had a gradient
            moments = {key: distributed.placed_like(state[f"{key}.{name}"], weight) for key in MOMENTS}
            step = state["step"].to(weight.device, copy=True)
            optimiser.state[weight] = {"step": step, **moments}
    return optimiser


def take_step(optimiser: torch.optim.AdamW) -> None:
    """Update the weights and clear their gradients."""
    with cost.phase("optimiser"):
        optimiser.step()
        optimiser.zero_grad()


def save_state(model: Any, optimiser: torch.optim.AdamW, path: Path, empty: bool) -> None:
    """Write the state of a model and its optimiser, or an empty one.

    The first process does, and all must call it.
    """
    has_lora = lora.is_adapted(model)
    state: lora.State = {}
    for name, weight in () if empty else model.named_parameters():
        weight_state = optimiser.state.get(weight, {})  # empty: has no gradient
        value = distributed.whole(weight.data)
        entries = {
            f"{key}.{name}": distributed.whole(weight_state[key]).to(torch.float32 if has_lora else kind)
            for key, kind in MOMENTS.items()
            if weight_state
        }
        if has_lora:
            entries |= lora.entry(name, value)
        elif weight_state:
            entries[f"rest.{name}"] = rest(value)
        if distributed.is_first():
            state |= {key: entry.cpu() for key, entry in entries.items()}
            state |= {"step": weight_state["step"].cpu()} if weight_state else {}
    if distributed.is_first():
        with storage.replacing(path) as temporary:
            save_file(state, temporary)
