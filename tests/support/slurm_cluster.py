"""A Slurm of two nodes on this machine, in a folder of its own: Debian's slurm-wlm and munge, root needed.

    with cluster(folder) as environment: …    # `sbatch`, `squeue` and `srun` work in this environment

Both nodes are daemons of this host, each with one processor and one GPU, which is a character device. Nothing
of the machine's own Slurm or munge is touched; at the end all daemons are gone.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from web import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel", "scontrol", "sinfo")
NODES = ("node1", "node2")
CONF = """
ClusterName=igpo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
JobRequeue=0
KillWait=2
MinJobAge=300
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=10000 Gres=gpu:1
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=10000 Gres=gpu:1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be made here; empty if one can."""
    if os.geteuid():
        return "root is needed"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge" if absent else ""


def configure(folder: Path) -> None:
    """Write the configuration, a key, and the devices that stand for GPUs."""
    (folder / "state").mkdir()
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, ports=free_ports(3)))
    lines = []
    for node in NODES:
        device = folder / f"{node}-gpu0"
        subprocess.run(["mknod", device, "c", "1", "3"], check=True)
        lines.append(f"NodeName={node} Name=gpu File={device}\n")
    (folder / "gres.conf").write_text("".join(lines))
    # the executor's jobs forget SLURM_CONF, without which `srun` looks in the machine's own places
    wrapper = folder / "bin/srun"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    wrapper.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)


def start_node(folder: Path, node: str) -> subprocess.Popen[bytes]:
    """Start a node's daemon, in a session of its own."""
    command = ["slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def start_head(folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start what authenticates messages, and the controller."""
    munge = [f"--key-file={folder / 'munge.key'}", f"--socket={folder / 'munge.socket'}"]
    munge += [f"--{name}-file={folder / f'munged.{name}'}" for name in ("pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", *munge],
        ["slurmctld", "-D", "-f", str(folder / "slurm.conf")],
    ]
    daemons = []
    for command in commands:
        daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1)
    return daemons


def ready(environment: dict[str, str], seconds: float = 60) -> None:
    """Wait until both nodes are idle. Raises RuntimeError if they aren't in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N %T"], env=environment, capture_output=True, text=True
        )
        if process.stdout.split("\n")[:-1] == [f"{node} idle" for node in NODES]:
            return
        time.sleep(0.5)
    raise RuntimeError(f"the nodes did not start: {process.stdout} {process.stderr}")


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End daemons, the last started first."""
    for process in reversed(processes):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start the cluster in an empty folder; yields the environment in which its commands work."""
    configure(folder)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    daemons = start_head(folder)
    nodes = [start_node(folder, node) for node in NODES]
    try:
        ready(environment)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        end([*daemons, *nodes])
        subprocess.run(["pkill", "-f", f"slurmd.*{folder}"], check=False)
        subprocess.run(["pkill", "-f", f"slurmstepd.*{folder}"], check=False)
