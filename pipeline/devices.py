"""The processors and GPUs of this machine, and which of them a stage takes."""

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:  # its import takes a second
    import torch


def compute_dtype() -> "torch.dtype":
    """bf16 on a GPU and on processors that compute in it (three times as fast), else fp32."""
    import torch

    fast = torch.cuda.is_available() or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def gpu_devices() -> list[Path]:
    """The NVIDIA GPUs of this machine."""
    return sorted(Path("/dev").glob("nvidia[0-9]*"))


def claim_gpus() -> None:
    """Show CUDA as many GPUs as the rule takes (`IGPO_GPUS`), none of which another rule's stage has.

    A GPU is held by a lock in `.snakemake` until the process ends; a cluster gives GPUs out itself. Raises
    UserError if too few are free.
    """
    count, devices = int(os.environ.get("IGPO_GPUS", "0")), gpu_devices()
    if not count or not devices or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    numbers = []
    for number in range(len(devices)):
        lock = os.open(f".snakemake/gpu{number}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        numbers.append(str(number))
        if len(numbers) == count:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
            return
    raise UserError(
        f"{count} GPUs are needed and {len(numbers)} of {len(devices)} are free: "
        "end what else runs here, or lower --resources gpu"
    )


def device() -> str:
    """What a stage's models run on, all its processes together: `2 CPU cores`, `8 x NVIDIA H200`."""
    import torch

    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    processes = torch.distributed.get_world_size() if group else 1
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()}"
    return f"{processes * torch.get_num_threads()} CPU cores"
