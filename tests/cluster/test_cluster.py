"""The tiny experiment as jobs of a real Slurm of two nodes, one of which fails: the tables of a local run."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import slurm_cluster
from root import ROOT
from small_update import stage_words
from tiny import tiny
from tiny_experiment import make
from update_process import chosen, trained

from pipeline import storage

pytestmark = pytest.mark.slow
# a job takes half a minute, most of it Snakemake's: one iteration, nothing on dev questions
SHORT = {"run": {"iterations": 1, "validate_every": 0, "select": "last", "keep_policies": "last"}}
SHARDED = {**SHORT, "rollout": {"at_once": 2, "shards": 2}, "score": {"shards": 2}}
QUICK = [
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--seconds-between-status-checks",
    "1",
    "--latency-wait",
    "5",
]
ONE_PROCESSOR = ["warmup", "index", "coverage", "rollout_shard", "validation_rollout_shard"]
ONE_PROCESSOR += ["evaluation_rollout_shard", "score_shard", "train", "train_kept"]


def snakemake(folder: Path, *options: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start `snakemake` in a folder."""
    command = [sys.executable, "-m", "snakemake", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


def node_of(rule: str, environment: dict[str, str]) -> str:
    """The node on which a job of a rule runs, by Snakemake's comment on the job; empty if none does."""
    command = ["squeue", "-h", "-t", "R", "-o", "%k %N"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line.split() for line in process.stdout.splitlines()]
    return next((line[-1] for line in lines if line[0].startswith(f"rule_{rule}")), "")


def kill_node(folder: Path, node: str) -> None:
    """Kill all that a node runs: its daemon, the steps of its jobs, their processes."""
    for process in psutil.process_iter():
        try:
            words, variables = " ".join(process.cmdline()), process.environ()
        except psutil.Error:
            continue
        of_node = variables.get("SLURMD_NODENAME") == node and variables.get("SLURM_CONF") == str(
            folder / "slurm.conf"
        )
        if of_node or f"slurmd -D -N {node} -f {folder}" in words:
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, base_model):
    """(folder of a local run, folder of the cluster's run, what the latter printed)."""
    if reason := slurm_cluster.missing():
        pytest.skip(f"NOT TESTED: jobs on a Slurm cluster: {reason}")
    local = make(tmp_path_factory.mktemp("local"), base_model, **SHORT)
    here = snakemake(local, "--cores", "1", environment=dict(os.environ))
    output, _ = here.communicate()
    assert here.returncode == 0, output[-6000:]
    there = make(tmp_path_factory.mktemp("cluster"), base_model, **SHARDED)
    home = tmp_path_factory.mktemp("slurm")
    with slurm_cluster.cluster(home) as environment:
        threads = [f"{rule}=1" for rule in ONE_PROCESSOR]
        profile = ["--profile", "profiles/slurm", "--set-threads", *threads, *QUICK]
        run = snakemake(there, *profile, environment=environment)
        while run.poll() is None and not (node := node_of("rollout_shard", environment)):
            time.sleep(0.2)
        kill_node(home, node)
        output, _ = run.communicate()
        assert run.returncode == 0, output[-6000:]
    return local, there, output


def test_tables_and_policies_are_those_of_a_local_run(runs):
    local, there, _ = runs
    files = [
        path.relative_to(local)
        for path in (local / "results").rglob("*")
        if path.suffix in (".parquet", ".csv")
    ]
    files += [path.relative_to(local) for path in (local / "results").rglob("policy.json")]
    assert Path("results/tables/main.csv") in files
    assert not [path for path in files if (local / path).read_bytes() != (there / path).read_bytes()]


def test_a_job_whose_node_failed_is_submitted_again(runs):
    _, there, output = runs
    (log,) = (there / ".snakemake/log").glob("*.log")
    assert re.search(r"Error in rule rollout_shard:(?s:.)*Trying to restart job", log.read_text())
    assert "Trying to restart job" in output


def test_jobs_of_a_cluster_start_no_server(runs):
    _, there, _ = runs
    assert not (there / ".snakemake/forked.lock").exists()


def test_an_update_over_two_nodes_is_that_of_one_process(tmp_path):
    if reason := slurm_cluster.missing():
        pytest.skip(f"NOT TESTED: an update over the nodes of a Slurm job: {reason}")
    words = stage_words(tmp_path)
    tiny("llama", tied=True).bfloat16().save_pretrained(tmp_path / "policy")
    one = trained(words, tmp_path / "one", batch_tokens=30)
    (tmp_path / "slurm").mkdir()
    stage = [sys.executable, "-m", "igpo.train", *words, *chosen(batch_tokens=30, nodes=2)]
    command = shlex.join([*stage, "--out", str(tmp_path / "two")])
    with slurm_cluster.cluster(tmp_path / "slurm") as environment:
        job = [
            "sbatch",
            "--wait",
            "--nodes=2",
            "--ntasks=2",
            f"--chdir={ROOT}",
            f"--output={tmp_path / 'log'}",
        ]
        process = subprocess.run([*job, "--wrap", command], env=environment, timeout=300)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    metrics = [storage.read_json(folder / "policy.json")["metrics"] for folder in (one, tmp_path / "two")]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
