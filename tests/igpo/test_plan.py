"""What an experiment will cost and how far it is: `igpo plan`, `igpo status`, and what they measure."""

import re
from pathlib import Path

import numpy as np
import pytest
import results_tree
from root import ROOT
from safetensors.numpy import save_file

from igpo import plan, status
from igpo.experiment import layout
from igpo.reporting import measured
from igpo.reporting.gpu_time import Gpu, Work, iteration_seconds, rollout_seconds
from igpo.reporting.measured import Speed
from igpo.reporting.volume import volume, with_comparisons
from pipeline import storage
from pipeline.errors import UserError
from pipeline.settings import read_params


def test_the_papers_experiment_is_the_papers(params):
    paper = read_params([ROOT / "params.yaml", ROOT / "experiments" / "paper.yaml"])
    numbers = volume({**paper, "run": {**paper["run"], "seeds": [1], "arms": ["igpo"]}}, {"test": 3197})
    assert numbers["validation trajectories"] == 7 * 512  # before the run, and after each ten updates
    assert numbers["training trajectories"] == 30_720  # 60 steps of 32 questions and 16 trajectories
    assert numbers["evaluation trajectories"] == 7 * 3197
    assert paper["rollout"]["max_turns"] == 10
    assert paper["train"]["norm_tokens"] == paper["rollout"]["max_turns"] * paper["rollout"]["turn_tokens"]
    assert len(paper["evaluate"]["rollout"]["benchmarks"]) == 7


def test_a_plan_has_the_arms_of_comparisons_and_their_critics(params):
    params["run"] |= {"arms": ["igpo"], "seeds": [1, 2], "iterations": 3}
    numbers = volume(with_comparisons(params, ["algorithms"]), {})
    arms = len(layout.compared_arms(params, "algorithms"))  # igpo and ppo among them
    assert (numbers["runs"], numbers["of them with a critic"]) == (2 * arms, 2)
    assert numbers["updates"] == 2 * 3 * (arms + 1)
    assert numbers["of them for critics"] * arms == numbers["training tokens"]
    assert numbers["policies kept"] == 2 * numbers["runs"]  # the last and the best
    models = numbers["policies kept"] + 2 * 3 + 4  # critics go with their states; base, start, two in use
    assert plan.disk_bytes(numbers, 1000, keep_states=True) == 1000 * (8 * numbers["updates"] + 2 * models)
    hours = plan.hours(numbers, {"rollout": 10.0, "critic": 5.0})
    played = sum(numbers[f"{name} tokens"] for name in ("training", "validation", "evaluation"))
    assert hours["rollout"] == pytest.approx(played / 36_000)
    assert hours["critic"] == pytest.approx(numbers["of them for critics"] / 18_000)
    assert hours["score"] is hours["train"] is None


def write_measured(root: Path, weights: int) -> None:
    """What an iteration of 5 tokens leaves: its costs and a base model."""
    folder = results_tree.write_iteration(root / "results", "igpo", 1, 1, f1=0.5)
    results_tree.write_cost(folder / "rollout.cost.json", 2, device="2 CPU cores")
    results_tree.write_cost(folder / "train.cost.json", 10)
    base = root / "results/models/base"
    base.mkdir(parents=True)
    save_file({"w": np.zeros((weights // 100, 100), np.float16)}, base / "model.safetensors")
    storage.write_json({"source": "smollm2"}, base / "policy.json")


def test_speeds_are_measured_from_what_ran_and_scaled(params, tmp_path):
    write_measured(tmp_path, 1_000_000)
    speeds = measured.speeds(tmp_path)
    assert speeds == {"rollout": Speed(2.5, "2 CPU cores"), "train": Speed(0.5, "")}
    gpus = {"rollout": 1, "train": 8}
    same = plan.expected_speeds(speeds, gpus)
    assert same["rollout"] == (2.5, "measured on 2 CPU cores")
    assert same["train"] == (4.0, "scaled from what was measured on an unknown machine")
    other = plan.expected_speeds({"train": Speed(6.0, "2 x NVIDIA H200")}, gpus)
    assert other["train"] == (24.0, "scaled from what was measured on 2 x NVIDIA H200")
    assert plan.planned_weights(params, tmp_path) == 1_000_000
    params["model"]["source"] = str(tmp_path / "another")
    assert plan.planned_weights(params, tmp_path) == 0


def test_a_plan_says_gpu_hours_and_where_they_come_from(tmp_path, capsys):
    write_measured(tmp_path, 1_000_000)
    files = [
        word for name in ("params.yaml", "experiments/paper.yaml") for word in ("--params", str(ROOT / name))
    ]
    options = ["--root", str(tmp_path), "--weights", "1e6", "--questions", "test=3197", "--tokens", "4000"]
    plan.main([*files, *options, "--throughput", "train=1000"])
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    trained, evaluated = 6 * 30_720 * 4000, (12 * 3197 + (1 + 6 * 6) * 512) * 4000  # validations with them
    assert lines["training tokens"] == f"{trained:,}"
    assert lines["memory of training, without activations"] == "0.0 GB  0.0 GB on each of 8"
    rollout, train = (trained + evaluated) / 2.5 / 3600, trained / 1000 / 3600
    how = f"{rollout:,.2f} h on 1, at 2.5 tokens/s measured on 2 CPU cores"
    assert lines["GPU hours of rollout"] == f"{rollout:,.2f} h  {how}"
    assert (
        lines["GPU hours of train"]
        == f"{8 * train:,.2f} h  {train:,.2f} h on 8, at 1,000.0 tokens/s as given"
    )
    assert "run an iteration here, or give --throughput score=N" in lines["GPU hours of score"]
    assert lines["GPU hours in total"] == f"{rollout + 8 * train:,.2f} h  without score, indexing"
    assert "GPU hours of critic" not in lines


def test_a_plan_counts_every_gpu_that_a_stage_holds(params, tmp_path, capsys):
    own = "train: {processes: 8, nodes: 4}\nscore: {processes: 2}\nrollout: {tensor_parallel: 4}\n"
    (tmp_path / "own.yaml").write_text(own)
    files = [
        word for name in (ROOT / "params.yaml", tmp_path / "own.yaml") for word in ("--params", str(name))
    ]
    options = [
        "--root",
        str(tmp_path),
        "--weights",
        "32e9",
        "--questions",
        "test=9",
        "--questions",
        "train=99",
    ]
    speeds = [word for name in ("rollout", "train") for word in ("--throughput", f"{name}=1000")]
    plan.main([*files, *options, *speeds])
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["memory of training, without activations"].endswith(" on each of 32")
    assert lines["memory of scoring, likewise"].endswith(" on each of 2")
    assert " h on 4, at 1,000.0 tokens/s" in lines["GPU hours of rollout"]
    assert " h on 32, at 1,000.0 tokens/s" in lines["GPU hours of train"]


def test_hours_on_gpus_of_nothing_are_one_line(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("run: {iterations: 0}\n")
    files = [
        word for name in (ROOT / "params.yaml", tmp_path / "own.yaml") for word in ("--params", str(name))
    ]
    with pytest.raises(SystemExit, match="2"):
        plan.main([*files, "--root", str(tmp_path), "--weights", "1e9", "--gpu", "H100"])
    assert "error: --gpu: nothing is trained (run.arms, run.iterations)" in capsys.readouterr().err


def test_another_model_is_not_scaled_from_what_was_measured(tmp_path, capsys):
    write_measured(tmp_path, 1_000_000)
    paper = ["--params", str(ROOT / "params.yaml"), "--params", str(ROOT / "experiments/paper.yaml")]
    plan.main([*paper, "--root", str(tmp_path), "--weights", "2e6", "--questions", "test=3197"])
    assert "unknown: run an iteration here, or give --throughput rollout=N" in capsys.readouterr().out


GPU = Gpu(100e12, 1e12, 80e9)
WORK = Work(trajectories=64, tokens=1000, own=200, together=16)


def test_sampling_reads_the_weights_once_a_step_for_all_that_is_sampled_together():
    """By hand: 1e9 weights are read in 2e9 / 0.6e12 s, 16 tokens are computed in 16 x 2e9 / 40e12 s, less."""
    step, token = 2e9 / 0.6e12, 2e9 / 40e12
    assert 16 * token < step
    expected = 4 * 200 * step + 64 * 800 * token
    assert rollout_seconds(WORK, 1e9, GPU, engines=1, parallel=1) == pytest.approx(expected)
    assert rollout_seconds(WORK, 1e9, GPU, engines=4, parallel=1) == pytest.approx(expected / 4)
    assert rollout_seconds(WORK, 1e9, GPU, engines=1, parallel=2) == pytest.approx(expected / 2)
    many = WORK._replace(together=64 * 100, trajectories=6400)  # now computing bounds a step
    assert rollout_seconds(many, 1e9, GPU, 1, 1) == pytest.approx(6400 * (200 + 800) * token)


def test_an_iteration_counts_the_passes_of_its_stages(params):
    params["train"] |= {"checkpoint": False, "updates": 2}
    tokens, rate = 64 * 1000, 0.4 * 100e12
    seconds = iteration_seconds(params, WORK, 1e9, GPU, 8, sharded=True)
    assert seconds["score"] == pytest.approx(tokens * 2 * 2e9 / (8 * rate))
    assert seconds["train"] == pytest.approx(tokens * 2 * 6e9 / (8 * rate))
    alone = iteration_seconds(params, WORK, 1e9, GPU, 8, sharded=False)
    assert alone["score"] == pytest.approx(8 * seconds["score"])
    assert alone["train"] == seconds["train"]
    params["train"]["checkpoint"] = True
    again = iteration_seconds(params, WORK, 1e9, GPU, 8, sharded=True)
    assert again["train"] == pytest.approx(seconds["train"] * 8 / 6)


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (8, 1), (8, 4)])
def test_a_plan_says_what_bounds_an_iteration_on_gpus(tmp_path, capsys, gpus, nodes):
    paper = ["--params", str(ROOT / "params.yaml"), "--params", str(ROOT / "experiments/paper.yaml")]
    options = ["--root", str(tmp_path), "--weights", "7.6e9", "--questions", "test=3197", "--tokens", "8000"]
    options += ["--sampled", "3000", "--gpu", "H100", "--gpus", str(gpus), "--nodes", str(nodes)]
    plan.main([*paper, *options])
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert re.search(
        r"rollout \d+ s, score \d+ s, train \d+ s: \w+ bounds it", lines["an iteration with shards"]
    )
    assert f"GPU hours on {gpus * nodes} x H100" in lines["all runs with shards"]
    assert ("training fits" in lines) == (gpus > 1)
    assert "training does not fit" in lines or gpus > 1


def test_a_plan_counts_the_disk_of_corpus_indexes_and_trajectories(params, tmp_path):
    corpus = tmp_path / "results/corpus.parquet"
    storage.write([{"id": "1", "title": "a", "text": "b"}], storage.CORPUS, corpus, ("id",))
    for kind, settings in (("bm25", {"k1": 0.9}), ("dense", {"encoder": "minilm", "faiss": "Flat"})):
        manifest = {"kind": kind, "rows": 10, "files": {"a": 1000, "b": 500}, "settings": settings}
        storage.write_json(manifest, tmp_path / f"results/index/{kind}/manifest.json")
    sizes = {name: size for name, size, _ in plan.data_bytes(params, tmp_path, 2000)}
    assert sizes == {"corpus": 2000 * corpus.stat().st_size, "index bm25": 300_000, "index dense": 300_000}
    params["index"]["faiss"] = "IVF16,PQ64"
    dense = ("index dense", 2000 * 384 * 4, "2,000 vectors of 384 x 4 bytes")
    assert list(plan.data_bytes(params, tmp_path, 2000))[-1] == dense
    params["index"]["encoder"] = str(tmp_path / "nowhere")
    assert list(plan.data_bytes(params, tmp_path, 2000))[-1][1] is None
    assert {size for _, size, _ in plan.data_bytes(params, tmp_path, 0)} == {None}
    numbers = volume(params, {"test": 7}, length=1000)
    tokens = sum(numbers[f"{name} tokens"] for name in ("training", "validation", "evaluation"))
    *_, trajectories, _, total = plan.disk_lines(params, tmp_path, numbers, 10**9, 10**9)
    assert trajectories[1:] == (f"{16 * tokens / 1e9:,.1f} GB", "16.0 bytes a token")
    data = 10**9 * (corpus.stat().st_size + 150) + 16 * tokens + plan.disk_bytes(numbers, 10**9, False)
    assert total == ("disk in total", f"{data / 1e9:,.1f} GB", "without index dense")


def test_plan_multiplies_and_status_counts(params, tmp_path, capsys):
    run = {
        "arms": ["igpo"],
        "baselines": ["rag"],
        "seeds": [1, 2],
        "iterations": 3,
        "validate_every": 2,
        "validation_questions": None,
        "select": "last",
        "keep_policies": "all",
        "keep_training_state": False,
    }
    params["run"] = run
    params["rollout"] |= {"questions": 5, "samples": 4, "max_tokens": 100}
    params["evaluate"]["rollout"] = {"questions": None, "samples": 1}
    numbers = volume(params, {"test": 7, "dev": 9})
    assert numbers["training trajectories"] == 2 * 3 * 5 * 4
    assert numbers["training tokens"] == 12_000
    assert volume(params, {"test": 7, "dev": 9}, length=30)["training tokens"] == 3600
    assert numbers["evaluation trajectories"] == 4 * 7
    assert (
        numbers["validation trajectories"] == (1 + 2 * 2) * 9
    )  # the start; after 2 and 3 updates of each run
    assert numbers["policies kept"] == 2 * (3 + 1)
    assert plan.disk_bytes(numbers, 1000, keep_states=False) == 1000 * (2 * (8 + 4) + 8 * 2)
    with pytest.raises(UserError, match="give --questions test=N"):
        volume(params, {})
    with pytest.raises(UserError, match="give --questions dev=N"):
        volume(params, {"test": 7})
    (tmp_path / "results/runs/igpo/s1/001").mkdir(parents=True)
    (tmp_path / "results/runs/igpo/s1/001/rollouts.parquet").touch()
    steps = {
        name: (count, total, following) for name, count, total, following in status.steps(params, tmp_path)
    }
    assert steps["igpo s1"] == (1, 12, "001/scores.parquet")
    assert steps["igpo s2"] == (0, 12, "001/rollouts.parquet")
    assert steps["validations"] == (0, 5, "validation/metrics.json")
    assert list(status.warnings(params, tmp_path)) == []
    storage.write_json({"warnings": ["it falls"]}, tmp_path / "results/runs/igpo/s1/001/health.json")
    assert list(status.warnings(params, tmp_path)) == ["igpo/s1/001: it falls"]
