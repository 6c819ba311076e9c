"""How long an experiment takes on GPUs of a kind, by operation counts, for when nothing was measured.

A token's pass forward takes 2 operations per weight, forward and backward 6, and 2 more if layers are
computed again (`train.checkpoint`). Each step of sampling reads all weights once for all sequences that are
sampled together. Of a GPU's peak for dense bf16 a share of OPERATIONS is taken to be reached, and BANDWIDTH
of its memory's. Left out: attention and its cache, which grow with a trajectory; searches; loading.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

OPERATIONS = 0.4
BANDWIDTH = 0.6
READ_BYTES = 2  # per weight and step of sampling: bf16
PASSES_SCORED = 2  # the policy's and the reference's


class Gpu(NamedTuple):
    """Peaks of a kind of GPU by its maker's data sheet: dense bf16 operations/s, memory bytes/s, bytes."""

    operations: float
    bandwidth: float
    memory: float


GPUS = {
    "A10": Gpu(125e12, 0.60e12, 24e9),
    "L4": Gpu(121e12, 0.30e12, 24e9),
    "L40S": Gpu(362e12, 0.86e12, 48e9),
    "RTX4090": Gpu(165e12, 1.01e12, 24e9),
    "A100": Gpu(312e12, 2.04e12, 80e9),
    "H100": Gpu(989e12, 3.35e12, 80e9),
    "H200": Gpu(989e12, 4.80e12, 141e9),
    "B200": Gpu(2250e12, 8.00e12, 180e9),
}


class Work(NamedTuple):
    """Trajectories of one length, of which `own` tokens are the model's, in groups of `together`."""

    trajectories: float
    tokens: float
    own: float
    together: float


def rollout_seconds(work: Work, weights: float, gpu: Gpu, engines: int, parallel: int) -> float:
    """Seconds of sampling the trajectories by `engines`, of `parallel` GPUs each."""
    each = work.trajectories / engines
    together = min(work.together, each)
    reading = READ_BYTES * weights / (BANDWIDTH * gpu.bandwidth * parallel)
    per_token = 2 * weights / (OPERATIONS * gpu.operations * parallel)
    sampling = work.own * max(reading, together * per_token) * each / together
    return sampling + each * (work.tokens - work.own) * per_token


def pass_seconds(work: Work, weights: float, gpu: Gpu, gpus: int, operations: float) -> float:
    """Seconds of passes over all tokens with so many operations per weight and token."""
    return work.trajectories * work.tokens * operations * weights / (OPERATIONS * gpu.operations * gpus)


def iteration_seconds(
    params: Mapping[str, Any], work: Work, weights: float, gpu: Gpu, gpus: int, sharded: bool
) -> dict[str, float]:
    """Seconds of an iteration's rollouts, scores and update on `gpus`.

    Sharded, rollouts and scores have all of them; otherwise as many as one job takes.
    """
    parallel, processes = params["rollout"]["tensor_parallel"], params["score"]["processes"]
    operations = 8 if params["train"]["checkpoint"] else 6
    return {
        "rollout": rollout_seconds(work, weights, gpu, max(1, gpus // parallel) if sharded else 1, parallel),
        "score": pass_seconds(work, weights, gpu, gpus if sharded else processes, 2 * PASSES_SCORED),
        "train": pass_seconds(work, weights, gpu, gpus, operations * params["train"]["updates"]),
    }
