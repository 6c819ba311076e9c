"""One stage over several processes, which `igpo.training.launch` starts: FSDP2 shards the model over them.

Every process reads the same files, holds a share of each weight, of its gradient and of AdamW's state, and
passes a share of the batch; gradients are summed, so the update is that of one process. If there is only
one, these functions hand back what they are given.
"""

import functools
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from igpo.tree.forward import logprobs
from igpo.tree.segments import Pack, Segment, batches, pack
from pipeline.errors import UserError
from pipeline.log import log
from pipeline.stage import told


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started.

    The first error that a user can mend ends all, and it alone is told: every other process then fails at its
    next exchange with them.
    """
    store, rank, processes = next(dist.rendezvous("env://"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(store=store, rank=rank, world_size=processes)
    if rank:
        log.setLevel(logging.WARNING)  # progress once
    try:
        yield
    except Exception as error:
        own = told(error) is not None
        if store.add("errors", int(own)) > own:
            sys.exit(2)
        raise
    dist.destroy_process_group()


def is_joined() -> bool:
    """Whether this process is one of those that torchrun started; vLLM leaves a group of its own behind."""
    return dist.is_torchelastic_launched() and dist.is_initialized()


def is_first() -> bool:
    """Whether this process writes the files: the only one, or the first of several."""
    return not is_joined() or dist.get_rank() == 0


def shard(model: Any) -> None:
    """Shard a causal language model over the processes; its call becomes `logprobs`."""
    if is_joined():
        model.forward = functools.partial(logprobs, model)
        shard_around(model, model)


def shard_around(module: Any, body: Any) -> None:
    """Shard a module with a causal language model in it over the processes, a layer at a time.

    FSDP gathers weights ahead of a module's call, so a pass must enter by that of `module`.
    """
    if not is_joined():
        return
    mesh = init_device_mesh(body.device.type, (dist.get_world_size(),))
    for part in (*body.get_decoder().layers, module):
        fully_shard(part, mesh=mesh)
        # Gradients are summed, not averaged: the loss has the batch's weights. Gloo has plain sums alone.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def is_sharded(model: Any) -> bool:
    """Whether a module that was to be sharded met several processes."""
    return isinstance(model, FSDPModule)


def logprobs_of(model: Any, packed: Pack, entropy: bool = False) -> torch.Tensor:
    """`logprobs` of a model that may be sharded; all processes must call it equally often."""
    return model(packed, entropy) if is_sharded(model) else logprobs(model, packed, entropy)


def idle_pass(model: Any) -> None:
    """Take part in the others' pass of a sharded model: a tiny one, whose gradient, if any, is zero."""
    packed = pack([Segment([0, 0], targets=[1])], model.device)
    nothing = (0 * model(packed)).sum()
    if torch.is_grad_enabled():
        nothing.backward()


def share(trees: list[list[Segment]], tokens: int) -> tuple[list[int], int]:
    """Numbers of the trees that this process passes, and of its idle passes while others still have some.

    The largest tree first, each to the process with the fewest tokens; `tokens` is the budget of a pass.
    """
    if not is_joined():
        return list(range(len(trees))), 0
    sizes = [sum(len(segment.ids) for segment in tree) for tree in trees]
    shares: list[list[int]] = [[] for _ in range(dist.get_world_size())]
    for number in sorted(range(len(trees)), key=lambda i: -sizes[i]):
        min(shares, key=lambda mine: sum(sizes[i] for i in mine)).append(number)
    passes = [len(list(batches([trees[i] for i in sorted(mine)], tokens))) for mine in shares]
    rank = dist.get_rank()
    return sorted(shares[rank]), max(passes) - passes[rank]


def gathered(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks; tensors in it must be on the CPU."""
    if not is_joined():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a shard; all processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's shard of a tensor, which shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def check_size(model: Any, setting: str) -> None:
    """Raise UserError if a step of rate `setting` left NaN or infinity; all processes must call it."""
    size = float(whole(torch.nn.utils.get_total_norm([weight.detach() for weight in model.parameters()])))
    if not math.isfinite(size):
        raise UserError(f"the norm of the weights is {size} after a step: lower {setting}")


def whole_weights(model: Any) -> dict[str, torch.Tensor]:
    """The model's weights in full, on the CPU; the first process has them, all must call it."""
    weights = {}
    for name, weight in model.named_parameters():
        value = whole(weight.data)
        if is_first():
            weights[name] = value.cpu()
    return weights


def placed_like(tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor`, which every process holds, with the type, place and shards of `weight`."""
    tensor = tensor.to(weight.device, weight.dtype, copy=True)
    if not isinstance(weight, DTensor):
        return tensor
    return distribute_tensor(tensor, weight.device_mesh, weight.placements, src_data_rank=None)
