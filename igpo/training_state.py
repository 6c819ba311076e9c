"""What an update leaves to the next one beside the policy: `training_state.st`, and the optimiser it makes.

Of each weight the file holds what the folder's bf16 drops and AdamW's moments, all in bf16; of a model with
LoRA its adapters with their moments in fp32, and the weights that they are added to.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from igpo import distributed, lora
from retrieval import tables

MOMENTS = ("exp_avg", "exp_avg_sq")


def load_state(path: Path) -> lora.State:
    """The tensors of a state by their names; none where there is no file."""
    return load_file(path) if path.exists() else {}


def open_optimiser(model: Any, state: lora.State, params: SimpleNamespace) -> torch.optim.AdamW:
    """AdamW over the model's weights, both as the last update left them in `state`."""
    named = dict(model.named_parameters())
    optimiser = torch.optim.AdamW(
        named.values(), lr=params.lr, betas=(0.9, 0.999), weight_decay=params.weight_decay, fused=True
    )
    for name, weight in named.items():
        if f"rest.{name}" in state:
            weight.data.add_(distributed.placed_like(state[f"rest.{name}"], weight))
        if f"exp_avg.{name}" in state:  # else it never had a gradient
            moments = {key: distributed.placed_like(state[f"{key}.{name}"], weight) for key in MOMENTS}
            step = state["step"].to(weight.device, copy=True)
            optimiser.state[weight] = {"step": step, **moments}
    return optimiser


def save_state(model: Any, optimiser: torch.optim.AdamW, path: Path) -> None:
    """Write the state of a model and its optimiser; the first process does, and all must call it."""
    adapted = lora.is_adapted(model)
    state: lora.State = {}
    for name, weight in model.named_parameters():
        kept = optimiser.state.get(weight, {})  # empty: has no gradient
        value = distributed.whole(weight.data)
        entries = {f"{key}.{name}": distributed.whole(kept[key]) for key in MOMENTS if kept}
        if adapted:
            entries |= lora.entry(name, value)
        elif kept:
            entries[f"rest.{name}"] = value - value.bfloat16().float()
            entries = {key: entry.bfloat16() for key, entry in entries.items()}
        if distributed.is_first():
            state |= {key: entry.cpu() for key, entry in entries.items()}
            state |= {"step": kept["step"].cpu()} if kept else {}
    if distributed.is_first():
        with tables.replacing(path) as temporary:
            save_file(state, temporary)
