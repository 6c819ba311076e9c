"""LoRA (arXiv:2106.09685): a layer's weights W become W + 2 B A, of which training moves A and B alone.

A policy folder holds the sums, so that other stages read it as any other; `training_state.st` holds A, B and
W, from which the next update goes on.
"""

from typing import Any

import torch

SCALE = 2  # of B A: alpha over rank
State = dict[str, torch.Tensor]


def adapt(model: Any, rank: int) -> None:
    """Freeze the model and give all its linear layers but the last adapters, which change nothing yet.

    A is random, B zero.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()  # as precise as files keep them
    config = LoraConfig(r=rank, lora_alpha=SCALE * rank, lora_dropout=0.0, target_modules="all-linear")
    inject_adapter_in_model(config, model)


def restore(model: Any, state: State) -> None:
    """Put back in place what `entry` wrote of an adapted model's weights; nothing if `state` is empty."""
    for name, weight in model.named_parameters() if state else ():
        for key in entry(name, weight.data):
            weight.data.copy_(state[key])


def rank_of(state: State) -> int | None:
    """Rank of the adapters in a training state; None if it has none."""
    return next((len(value) for name, value in state.items() if ".lora_A." in name), None)


def is_adapted(model: Any) -> bool:
    """Whether the model has adapters."""
    return any(".lora_" in name for name, _ in model.named_parameters())


def entry(name: str, value: torch.Tensor) -> State:
    """What a training state holds of a weight of an adapted model: A, B, and W if they are added to it."""
    if ".lora_" in name:
        return {f"adapter.{name}": value}
    if ".base_layer." in name:
        return {f"base.{name.replace('.base_layer.', '.')}": value.bfloat16()}
    return {}


def merged(weights: State) -> State:
    """The weights of the model without adapters, by its own names: W + SCALE B A if there was one."""
    plain = {}
    for name, value in weights.items():
        layer, _, last = name.partition(".base_layer.")
        if last == "weight":
            down, up = (weights[f"{layer}.lora_{half}.default.weight"] for half in "AB")
            value = value + SCALE * up @ down
        if ".lora_" not in name:
            plain[name.replace(".base_layer.", ".")] = value
    return plain
