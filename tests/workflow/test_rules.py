"""What rules give to their stages: files and settings, by dry runs that print the commands."""

import re

import pytest
from dry_run import snakemake


@pytest.mark.slow
def test_every_questions_file_is_an_input(tmp_path):
    files = [tmp_path / name for name in ("nq.jsonl", "more/popqa.json", "more/tq.json", "hotpotqa_dev.json")]
    (tmp_path / "more").mkdir()
    for path in files:
        path.touch()
    source = [str(tmp_path / name) for name in ("nq.jsonl", "more", "hotpotqa_{split}.json")]
    (tmp_path / "mine.yaml").write_text(f"questions: {{source: {source}}}\n")
    target = "results/questions/test.parquet"
    process = snakemake(tmp_path, target, "--printshellcmds", "--configfile", str(tmp_path / "mine.yaml"))
    assert f"input: {', '.join(map(str, files))}, results/corpus.parquet" in process.stdout
    assert f"--source {source[0]} {source[1]} '{source[2]}' --corpus" in process.stdout


@pytest.mark.slow
def test_every_file_of_an_encoder_is_an_input_of_its_index_alone(tmp_path):
    names = ("1_Pooling/config.json", "config.json", "model.safetensors", ".git/x")
    for name in names:
        (tmp_path / "e5" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "e5" / name).touch()
    (tmp_path / "mine.yaml").write_text("index: {encoder: e5, shards: 2}\n")
    process = snakemake(tmp_path, "results/index.sha256", "--configfile", str(tmp_path / "mine.yaml"))
    files = "e5/1_Pooling/config.json, e5/config.json, e5/model.safetensors, results/corpus.parquet"
    assert process.stdout.count(f"input: {files}\n") == 2  # each shard
    assert f"input: {files}, results/index/vectors/1" in process.stdout
    assert "input: results/corpus.parquet\n    output: results/index/bm25" in process.stdout


@pytest.mark.slow
def test_health_looks_at_the_validation_that_follows_an_update(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {arms: [igpo], iterations: 2, validate_every: 2}\n")
    target, run = "results/tables/curves.csv", "results/runs/igpo/s1"
    process = snakemake(tmp_path, target, "--printshellcmds", "--configfile", str(tmp_path / "mine.yaml"))
    calls = re.findall(r"igpo\.health .*?(\d+)/rollouts.*?(?:--dev (.*?))? +--out", process.stdout)
    own, start = f"{run}/002/validation/metrics.json", "results/warmup/validation/metrics.json"
    assert dict(calls) == {"001": "", "002": f"{own} {start}"}


@pytest.mark.slow
def test_only_weights_that_change_make_an_arm_depend_on_the_number_of_iterations(tmp_path):
    (tmp_path / "mine.yaml").write_text("run: {arms: [igpo, curriculum], iterations: 4}\n")
    target = "results/policies.sha256"
    process = snakemake(tmp_path, target, "--printshellcmds", "--configfile", str(tmp_path / "mine.yaml"))
    calls = re.findall(
        r"igpo\.advantage .*/(\w+)/s1/(\d+)/rollouts.*?(?:--progress (\S+))? +--out", process.stdout
    )
    plain = {("igpo", f"00{k}", "") for k in (1, 2, 3, 4)}
    assert set(calls) == plain | {("curriculum", f"00{k}", str(k / 4)) for k in (1, 2, 3, 4)}


@pytest.mark.slow
def test_a_critic_discounts_as_its_arm_does(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "run: {arms: [ppo, late], iterations: 1}\n"
        "arms: {late: {advantage: {method: ppo, gamma: 0.9}, score: {step_reward: none}}}\n"
    )
    target = "results/policies.sha256"
    process = snakemake(tmp_path, target, "--printshellcmds", "--configfile", str(tmp_path / "mine.yaml"))
    calls = re.findall(r"igpo\.critic .*--gamma (\S+) --rollouts results/runs/(\w+)/", process.stdout)
    assert set(calls) == {("1.0", "ppo"), ("0.9", "late")}
