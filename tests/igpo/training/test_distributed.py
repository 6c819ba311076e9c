"""Several processes make the update of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from root import ROOT
from safetensors.torch import load_file
from small_update import batch, scored, stage_words
from tiny import tiny
from update_process import chosen, run, trained
from web import free_ports

from igpo.critic import HEAD
from igpo.experiment import schema
from igpo.experiment.policy import STATE
from igpo.training import checkpoint, distributed, launch
from pipeline import storage
from pipeline.errors import UserError

pytestmark = pytest.mark.slow
STEP = 1e-3  # AdamW moves a weight by about train.lr
FAILING = """
import torch
from igpo.training.launch import over_processes
from pipeline import sections, stage
from pipeline.errors import UserError

def run(args, params):
    if torch.distributed.get_rank() == 1:
        raise {error}
    torch.distributed.barrier()  # which the other never reaches
    return "done"

stage.command(sections.Train, lambda parser: None, over_processes("failing", run), None)()
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """The stage's command line, but for --out, over groups of three and two trajectories."""
    folder = tmp_path_factory.mktemp("stage")
    words = stage_words(folder)
    tiny("llama", tied=True).bfloat16().save_pretrained(folder / "policy")
    return words


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a policy or critic in fp32, as the next update begins with them."""
    state, files = load_file(folder / STATE), {"": folder / "model.safetensors"}
    if (folder / HEAD).exists():
        files = {"body.": files[""], "value.": folder / HEAD}
    tensors = {
        prefix + name: weight.float()
        for prefix, path in files.items()
        for name, weight in load_file(path).items()
    }
    for name, weight in tensors.items():
        if name != "body.lm_head.weight":  # of which a value has no gradient
            checkpoint.restore(weight, state[f"rest.{name}"])
    return tensors


def same(left: Path, right: Path) -> None:
    """Metrics agree to fp32's rounding; weights to what files keep of them and a hundredth of AdamW's step.

    The step is the gradient over its own size, so a gradient of terms that cancel has few good digits.
    """
    metrics = [storage.read_json(folder / "policy.json")["metrics"] for folder in (left, right)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    assert sorted(path.name for path in left.iterdir()) == sorted(path.name for path in right.iterdir())
    others = weights(right)
    for name, weight in weights(left).items():
        torch.testing.assert_close(weight, others[name], rtol=2**-15, atol=STEP / 100)


def test_a_process_that_torchrun_did_not_start_shards_nothing(tmp_path):
    """Even where it holds a process group, as one does in which vLLM ran."""
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model = tiny("llama")
        distributed.shard(model)
        assert not distributed.is_sharded(model)
        assert distributed.is_first()
        assert distributed.gathered(1) == [1]
        assert distributed.share([[]], 1) == ([0], 0)
    finally:
        torch.distributed.destroy_process_group()


def test_several_processes_make_the_update_of_one(words, tmp_path):
    """Two pass five trajectories; from where they ended, three pass two groups, one of them without any."""
    one = trained(words, tmp_path / "one", batch_tokens=30)
    two = trained(words, tmp_path / "two", batch_tokens=30, processes=2)
    same(one, two)
    more = {"batch_tokens": 80, "checkpoint": "true"}
    again = trained([*words, "--policy", str(one)], tmp_path / "again", **more)
    three = trained([*words, "--policy", str(two)], tmp_path / "three", **more, processes=3)
    same(again, three)
    moved = (weights(again)["model.norm.weight"] - weights(one)["model.norm.weight"]).abs()
    assert moved.mean() > STEP / 10


def valued(words: list[str], before: Path, out: Path, **settings: object) -> Path:
    """The critic's stage over the same files."""
    options = {"lr": STEP, "weight_decay": 0.01, "max_grad_norm": 1.0} | settings
    options = {"checkpoint": False, "processes": 1} | options
    files = [*words[2:6], "--critic", str(before), "--values", str(out / "values.parquet"), "--out", str(out)]
    files += ["--gamma", "0.9"]
    process = run([*files, "--config", json.dumps(options)], "igpo.critic")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("igpo.critic: 9 turns") == 1
    return out


def values(folder: Path) -> list[float]:
    return storage.read(folder / "values.parquet", schema.VALUES)["value"].to_pylist()


def test_several_processes_make_the_update_of_one_critic(tmp_path):
    """As with the policy: from zeros over two, then from there over three, one of which has nothing to do."""
    words = stage_words(tmp_path, (*scored(), []))
    one = valued(words, tmp_path / "policy", tmp_path / "one", batch_tokens=30)
    two = valued(words, tmp_path / "policy", tmp_path / "two", batch_tokens=30, processes=2)
    same(one, two)
    assert values(one) == values(two) == [0.0] * 9
    again = valued(words, one, tmp_path / "again", batch_tokens=80, checkpoint=True)
    three = valued(words, two, tmp_path / "three", batch_tokens=80, checkpoint=True, processes=3)
    same(again, three)
    assert values(again) == pytest.approx(values(three), abs=1e-5)
    assert all(values(again))


def test_options_reach_the_processes(words, tmp_path):
    assert not load_file(trained([*words, "--no-state"], tmp_path / "two", processes=2) / STATE)


def test_bad_input_ends_all_processes_with_one_line(words, tmp_path):
    credits = batch()[2]
    storage.write(credits[1:], schema.ADVANTAGES, tmp_path / "short.parquet", schema.TURN_KEY)
    bad = [*words, "--advantages", str(tmp_path / "short.parquet"), "--out", str(tmp_path / "out")]
    process = run([*bad, *chosen(processes=2)])
    assert process.returncode == 2
    assert process.stderr == (
        "error: advantages: not of these rollouts, turn ('q1', 0, 1) of the rollouts is not in advantages: "
        "make advantages again\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ('UserError("the scores are odd")', "error: the scores are odd\n"),
        ('OSError(28, "No space left on device", "out")', "error: out: No space left on device; "),
    ],
)
def test_an_error_of_one_process_ends_all(words, tmp_path, error, message):
    (tmp_path / "failing.py").write_text(FAILING.replace("{error}", error))
    config = words[words.index("--config") :]
    process = run([*config, *chosen(processes=2)], "failing", tmp_path)
    assert process.stderr.startswith(message) and process.stderr.count("\n") == 1
    assert (process.returncode, process.stdout) == (2, "")


def start_on(words: list[str], out: Path, port: int, **settings: object) -> subprocess.Popen[str]:
    """The stage's command on one of two machines that meet on this one."""
    command = [sys.executable, "-m", "igpo.train", *words, *chosen(nodes=2, **settings), "--out", str(out)]
    meeting = {**os.environ, launch.RENDEZVOUS: f"127.0.0.1:{port}"}
    return subprocess.Popen(command, cwd=ROOT, env=meeting, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_two_machines_make_the_update_of_one(words, tmp_path, processes):
    one = trained(words, tmp_path / "one", batch_tokens=30)
    port = free_ports(1)[0]
    machines = [
        start_on(words, tmp_path / "two", port, batch_tokens=30, processes=processes) for _ in range(2)
    ]
    outputs = [machine.communicate()[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0]
    assert "".join(outputs).count("igpo.train: loss") == 1
    same(one, tmp_path / "two")


def test_a_machine_that_does_not_come_is_one_line(monkeypatch):
    monkeypatch.setattr(launch, "MEETING_S", 2)
    monkeypatch.setenv(launch.RENDEZVOUS, f"127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it sets, for the processes that it starts
    with pytest.raises(UserError, match=r"train.nodes: not all 2 machines met at 127.0.0.1:\d+ within 2 s"):
        launch.launch(1, 2, "igpo.train", [])


def test_several_machines_are_those_of_a_slurm_job(words, tmp_path):
    process = run([*words, *chosen(nodes=2), "--out", str(tmp_path / "out")])
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("error: train.nodes: 2, but this is no job of Slurm: use --profile")
