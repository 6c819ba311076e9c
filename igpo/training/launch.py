"""Start a stage in several processes, on one machine or on several, by torchrun.

On several machines the same command starts on each, and their processes meet at IGPO_RENDEZVOUS, the
HOST:PORT of one of them. In a job of Slurm the first machine starts the command on all.
"""

import functools
import json
import logging
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousTimeoutError

from igpo.training.distributed import is_first, joined
from pipeline.errors import UserError, one_line

Run = Callable[[Namespace, Any], str]
RENDEZVOUS = "IGPO_RENDEZVOUS"
MEETING_S = 300  # that machines wait for each other


def over_processes(module: str, run: Run) -> Run:
    """Let a stage's `run` start its module in as many processes as its section says, of which one sums up."""

    @functools.wraps(run)
    def start(args: Namespace, params: Any) -> str:
        if dist.is_torchelastic_launched():
            with joined():
                summary = run(args, params)
                return summary if is_first() else ""
        nodes = getattr(params, "nodes", 1)
        if params.processes * nodes == 1:
            return run(args, params)
        words = [*options(args), "--config", json.dumps(vars(params))]
        if nodes > 1 and RENDEZVOUS not in os.environ:
            start_on_nodes(nodes, module, words)
        else:
            launch(params.processes, nodes, module, words)
        return ""

    return start


def options(args: Namespace) -> list[str]:
    """The files, numbers and flags of a parsed command line as words again."""
    values = {f"--{name.replace('_', '-')}": value for name, value in vars(args).items()}
    flags = [name for name, value in values.items() if value is True]
    return flags + [
        f"{name}={value}"
        for name, value in values.items()
        if type(value) in (int, float) or isinstance(value, Path)
    ]


def start_on_nodes(nodes: int, module: str, words: list[str]) -> None:
    """Start this command on the machines of a Slurm job; exits with code 2 if it did so on one of them.

    Raises UserError outside of a job, and if it hasn't so many nodes.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise UserError(
            f"train.nodes: {nodes}, but this is no job of Slurm: use --profile profiles/slurm, or start the "
            f"command on each machine with {RENDEZVOUS}=HOST:PORT of one of them"
        )
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    meeting = {**os.environ, RENDEZVOUS: f"{socket.gethostname()}:{port}"}
    each = ["--ntasks-per-node=1", f"--cpus-per-task={os.environ['SLURM_CPUS_ON_NODE']}"]
    # the job's own step holds all that it has
    step = ["srun", f"--jobid={job}", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", *each]
    process = subprocess.run(
        [*step, "--kill-on-bad-exit=1", sys.executable, "-m", module, *words], env=meeting
    )
    if process.returncode:
        sys.exit(process.returncode)


def launch(processes: int, nodes: int, module: str, words: list[str]) -> None:
    """Run a stage's module in several processes of this machine, which share its cores or have a GPU each.

    Those of `nodes` machines belong together. Exits with code 2 if one of them did: it has said why. Raises
    UserError if the other machines don't come.
    """
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(f"processes is {processes}, but there are {torch.cuda.device_count()} GPUs")
    os.environ["OMP_NUM_THREADS"] = str(max(1, torch.get_num_threads() // processes))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    where = os.environ.get(RENDEZVOUS, "")
    meeting = ["--standalone"]
    if nodes > 1:
        meeting = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={where}", "--rdzv-id=igpo"]
        meeting.append(f"--rdzv-conf=join_timeout={MEETING_S},timeout={MEETING_S}")
    try:
        torchrun.main([*meeting, f"--nproc-per-node={processes}", "-m", module, *words])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode != 2:
            raise
        sys.exit(2)
    except (RendezvousTimeoutError, RendezvousConnectionError) as error:
        raise UserError(
            f"train.nodes: not all {nodes} machines met at {where} within {MEETING_S} s: start the command "
            f"on each, and let each reach that address ({one_line(error)})"
        ) from None
