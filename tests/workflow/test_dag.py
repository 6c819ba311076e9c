"""What runs for which parameters and targets: dry runs of Snakemake, and the lists behind its rules."""

import fcntl
import os
import re
import subprocess
from pathlib import Path

import pytest
from dry_run import plans, snakemake
from root import ROOT

from igpo.experiment import checks, layout
from pipeline import devices
from pipeline.devices import claim_gpus
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("rollout: {sampels: 4}", "unknown key 'sampels' in rollout; nearest valid key: 'samples'"),
        (
            "corpus: {source: mine.jsonl}",
            "corpus.source: 'mine.jsonl' is neither a file nor a folder with files, "
            "seen from {folder}; give one, or 'vital'",
        ),
    ],
)
def test_snakemake_ends_with_one_line_and_exit_code_2(tmp_path, overlay, message):
    (tmp_path / "mine.yaml").write_text(overlay)
    process = snakemake(tmp_path, "--quiet", "all", "--configfile", str(tmp_path / "mine.yaml"))
    errors = [line for line in process.stderr.splitlines() if "profile" not in line]
    assert errors == [f"error: params: {message.format(folder=tmp_path)}"]
    assert process.returncode == 2
    assert not (tmp_path / "results").exists()


def test_snakemake_s_overlays_are_read_as_strictly_as_ours(tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("rollout: {k: 010}\n")
    process = snakemake(tmp_path, "--quiet", "all", "--configfile", str(overlay))
    assert f"error: {overlay}: not YAML: '010' is octal" in process.stderr
    assert process.returncode == 2


def touch(folder: Path, *names: str) -> None:
    """Make empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with question files, models (one in a cache) and an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    touch(tmp_path, "q.jsonl", "nq_test.jsonl", "tiny/config.json")
    touch(tmp_path, "cache/models--its--cached/snapshots/main/config.json")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("questions", {"source": ["q.jsonl", "nq_{split}.jsonl", "tiny"]}),
        ("questions", {"source": ["vitalqa"]}),
        ("model", {"source": "tiny"}),
        ("model", {"source": "its/cached"}),
        ("judge", {"model": "gpt-4o-mini", "url": "http://127.0.0.1:8000/v1"}),
        ("index", {"kinds": ["bm25"], "encoder": "data/encoder"}),
    ],
)
def test_sources_that_are_there_or_not_read_pass(params, here, section, values):
    checks.check_sources({**params, section: {**params[section], **values}})


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("corpus", {"source": "vitalqa"}, "corpus.source: 'vitalqa' is neither"),
        ("questions", {"source": ["q.jsonl", "pq_{split}.jsonl"]}, "questions.source: 'pq_{split}.jsonl' is"),
        ("questions", {"source": ["q.jsonl", "vitalqa"]}, "questions.source: 'vitalqa' is"),
        ("questions", {"source": "empty"}, "questions.source: 'empty' is"),
        ("model", {"source": "its/other"}, "model.source: 'its/other' is"),
        ("model", {"source": "/not/a/model"}, "model.source: '/not/a/model' is"),
        ("judge", {"model": "gpt-4o-mini"}, "judge.model: 'gpt-4o-mini' is"),
        ("index", {"encoder": "its/cached"}, "index.encoder: 'its/cached' is"),
    ],
)
def test_a_source_that_is_not_there_is_named(params, here, section, values, message):
    with pytest.raises(UserError, match=re.escape(message)):
        checks.check_sources({**params, section: {**params[section], **values}})


def test_make_says_that_another_run_is_going_on(tmp_path):
    locks = [f"requirements/{name}" for name in ("cpu.txt", "torch-cpu.txt", "install.sh")]
    touch(tmp_path, ".venv/.made", ".snakemake/locks/0.input.lock", "pyproject.toml", *locks)
    with (tmp_path / ".snakemake/alive").open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        words = ["make", "run", "--assume-old=.venv/.made", f"--makefile={ROOT / 'Makefile'}"]
        process = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert process.stderr.splitlines()[0] == "error: another run is going on in this folder"
    assert process.returncode == 2


@pytest.mark.parametrize("table", checks.COMPARISONS)
@pytest.mark.slow
def test_a_table_of_the_paper_trains_its_arms_from_one_warm_start(table, params, tmp_path):
    rules = plans(tmp_path, f"tables/{table}")
    arms = len(layout.compared_arms(params, table))
    assert rules["warmup"] == 1
    assert rules["train"] == arms * params["run"]["iterations"]
    assert rules["rollout"] == rules["train"] - (arms - 1)  # all sample alike in the first iteration
    assert rules["evaluation_rollout"] == arms + 1  # and the warm start
    own = table if table in ("per_question", "single_turn") else "comparison"
    assert rules[own] == rules["show_table"] == 1
    assert "tables" not in rules


def test_a_baseline_in_a_comparison_is_not_trained(params):
    params["tables"]["algorithms"] = {"baseline": "rag", "rows": {"igpo": "IGPO"}}
    rows = layout.compared(params, "algorithms")
    assert list(rows) == ["rag", "warmup", "igpo_s1"]
    assert rows["rag"] == ("rag", "results/models/base")


@pytest.mark.slow
def test_the_main_table_and_the_time_are_targets_too(params, tmp_path):
    assert plans(tmp_path, "tables/main")["tables"] == 1
    rules = plans(tmp_path, "tables/time")
    assert rules["time_by_phase"] == 1
    assert rules["train"] == len(params["run"]["arms"]) * params["run"]["iterations"]
    assert "evaluation_rollout" not in rules


@pytest.mark.slow
def test_zero_advantages_are_recomputed_from_the_runs_own_iterations(params, tmp_path):
    rules = plans(tmp_path, "tables/collapse")
    arms, iterations = len(params["run"]["arms"]), params["run"]["iterations"]
    assert rules["collapse"] == rules["show_table"] == 1
    assert rules["score"] == arms * iterations - (arms - 1)
    assert rules["train"] + rules["train_kept"] == arms * iterations
    assert "evaluation_rollout" not in rules


def test_no_slot_for_a_model_ends_in_one_line(tmp_path):
    process = snakemake(tmp_path, "--quiet", "all", "--resources", "gpu=0")
    assert "error: --resources gpu=0: give how many model stages may run at a time" in process.stderr
    assert process.returncode == 2


@pytest.mark.slow
def test_a_judge_is_asked_for_evaluations_only_and_off_by_default(params, tmp_path):
    assert "judge" not in plans(tmp_path, "all")
    (tmp_path / "judge.yaml").write_text("judge: {url: 'http://127.0.0.1:8000/v1', model: any}\n")
    rules = plans(tmp_path, "all", "--configfile", str(tmp_path / "judge.yaml"))
    assert rules["judge"] == rules["evaluation_rollout"] == 5
    assert "judge_model" not in rules
    (tmp_path / "judge.yaml").write_text("judge: {model: smollm2}\n")
    rules = plans(tmp_path, "all", "--configfile", str(tmp_path / "judge.yaml"))
    assert (rules["judge"], rules["judge_model"]) == (5, 1)


@pytest.mark.slow
def test_rollouts_wait_for_health_only_where_a_collapse_stops_the_run(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {arms: [igpo], iterations: 3}\n")
    (tmp_path / "stop.yaml").write_text("health: {on_collapse: stop}\n")
    files, target = ["--configfile", str(tmp_path / "mine.yaml")], "results/policies.sha256"
    assert "health" not in plans(tmp_path, target, *files)
    assert plans(tmp_path, target, *files, str(tmp_path / "stop.yaml"))["health"] == 2  # not the last one's


def test_stages_side_by_side_have_gpus_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    monkeypatch.setattr(devices, "gpu_devices", lambda: [Path("nvidia0"), Path("nvidia1"), Path("nvidia2")])
    visible = []
    for count in ("0", "1", "2"):
        monkeypatch.setenv("IGPO_GPUS", count)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        claim_gpus()
        visible.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert visible == [None, "0", "1,2"]
    claim_gpus()  # what a stage starts sees the stage's own
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(UserError, match="2 GPUs are needed and 0 of 3 are free"):
        claim_gpus()


def test_arms_that_start_alike_share_their_first_rollouts_and_scores():
    alike = {"rollout": {"k": 1}, "score": {"gold": "first"}, "train": {"lr": 1}}
    arms = {"a": {}, "b": {"rollout": {"k": 2}}, "c": {"score": {"gold": "best"}}, "d": {"train": {"lr": 2}}}
    copies = layout.copies({**alike, "arms": arms, "run": {"seeds": [1, 2]}})
    assert copies == {
        f"results/runs/{arm}/s{seed}/001/{file}": f"results/runs/a/s{seed}/001/{file}"
        for seed in (1, 2)
        for arm, file in (("c", "rollouts.parquet"), ("d", "rollouts.parquet"), ("d", "scores.parquet"))
    }


def touch_papers_sources(folder: Path) -> None:
    """Empty files in place of what the paper's experiment is given."""
    names = ("wiki-18.jsonl", "encoder/config.json", "Qwen2.5-7B-Instruct/config.json", "paper_test.parquet")
    touch(folder / "data", *names)


@pytest.mark.slow
def test_the_papers_experiment_plans_as_a_whole(tmp_path):
    touch_papers_sources(tmp_path)
    options = ["--configfile", str(ROOT / "experiments" / "paper.yaml")]
    rules = plans(tmp_path, "all", *options)
    runs = 2 * 3  # arms and seeds
    for rule in ("advantage", "train", "health"):
        assert rules[rule] == runs * 60, rule
    acting = runs * 60 - 3  # the first iteration of each seed once
    assert rules["rollout_shard"] == rules["score_shard"] == 8 * acting
    evaluated = runs + 6  # the baselines and the warm start
    assert rules["evaluation_rollout_shard"] == 8 * evaluated
    validated = 1 + runs * 6  # the warm start, and every run after each ten updates
    assert rules["validation_rollout_shard"] == 8 * validated
    assert rules["join"] == 2 * acting + evaluated + validated
    assert rules["evaluate"] == runs * 60 + evaluated + validated
    assert rules["warmup"] == rules["tables"] == rules["report"] == rules["track"] == 1


@pytest.mark.slow
def test_the_papers_tables_and_figures_plan_with_its_experiment(params, tmp_path):
    touch_papers_sources(tmp_path)
    (tmp_path / "short.yaml").write_text("run: {iterations: 2}\n")  # for time: `all` above has the 60
    options = ["--configfile", str(ROOT / "experiments" / "paper.yaml"), str(tmp_path / "short.yaml")]
    targets = " ".join(f"tables/{table}" for table in (*checks.COMPARISONS, "time"))
    rules = plans(tmp_path, f"{targets} figures", *options)
    compared = {arm for table in checks.COMPARISONS for arm in layout.compared_arms(params, table)}
    assert rules["train"] == len(compared) * 3 * 2  # seeds and iterations; none is a baseline
    assert rules["critic"] == 3 * 2
    assert rules["comparison"] == 4
    for rule in ("single_turn", "per_question", "time_by_phase", "figures", "warmup"):
        assert rules[rule] == 1, rule


@pytest.mark.slow
def test_every_other_update_is_validated_and_the_best_is_evaluated_beside_the_last(tmp_path):
    run = "{arms: [igpo, grpo], baselines: [], iterations: 5, validate_every: 2, select: [last, best_dev]}"
    (tmp_path / "mine.yaml").write_text(f"run: {run}\ntables: {{baseline: warmup}}\n")
    options = ["--configfile", str(tmp_path / "mine.yaml")]
    rules = plans(tmp_path, "all", *options)
    assert rules["train"] == 2 * 5
    assert rules["validation_rollout"] == 1 + 2 * 3  # the start that both share; after 2, 4 and 5 updates
    assert rules["best_so_far"] == 2 * 2  # after 2 and 4 updates
    assert rules["best"] == 2
    assert rules["evaluation_rollout"] == 1 + 2 * 2
    assert rules["evaluate"] == 2 * 5 + rules["validation_rollout"] + rules["evaluation_rollout"]
    for target in ("results/policies.sha256", "tables/time", "tables/per_question"):
        assert plans(tmp_path, target, *options)["validation_rollout"] == 7, (
            "else it would train again for them"
        )


@pytest.mark.slow
def test_without_validations_there_is_neither_a_curve_nor_a_best_policy(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {validate_every: 0}\n")
    rules = plans(tmp_path, "all figures", "--configfile", str(tmp_path / "mine.yaml"))
    assert not {"validation_rollout", "best", "best_so_far"} & set(rules)
