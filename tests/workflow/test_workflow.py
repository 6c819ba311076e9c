"""The real Snakefile over the whole loop with a tiny model, offline; then what reruns and what does not.

The experiment runs in a copy of the repository, so that tests may edit parameters and sources.
"""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tiny_experiment import PASSAGES, can_cut_network, digests, make, snakemake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory, base_model) -> Path:
    """A copy of the repository in which the tiny experiment has run, without network if possible."""
    folder = make(tmp_path_factory.mktemp("tiny experiment"), base_model)  # a space in every path
    process = snakemake(folder, offline=can_cut_network())
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-6000:]
    return folder


def test_the_experiment_needs_no_network(finished):
    if not can_cut_network():
        pytest.skip(
            "NOT TESTED: that the experiment runs offline; this machine has no `unshare -rn` and `ip`"
        )
    assert (finished / "results/tables/main.csv").exists()


@pytest.fixture
def tree(finished):
    """The finished experiment; sources and parameters are put back after the test."""
    texts = {path: path.read_text() for path in (finished / "params.yaml", finished / "igpo" / "rollout.py")}
    yield finished
    for path, text in texts.items():
        path.write_text(text)


def change(tree: Path, section: str, **values: object) -> None:
    """Edit params.yaml."""
    params = yaml.safe_load((tree / "params.yaml").read_text())
    params[section] |= values
    (tree / "params.yaml").write_text(yaml.safe_dump(params))


def planned(tree: Path, *options: str) -> Counter:
    """How often each rule would run now; of kept policies or not is all one."""
    process = snakemake(tree, "-n", *options)
    assert process.returncode == 0, process.stderr
    rules = Counter(
        re.findall(r"^(?:local)?rule (\w+?)(?:_kept)?:", process.stdout + process.stderr, re.MULTILINE)
    )
    del rules["all"]
    return rules


def test_every_output_is_there(finished):
    results = finished / "results"
    for file in (
        "tables/main.csv",
        "tables/main.md",
        "tables/main.tex",
        "report.html",
        "coverage.json",
        "track.json",
    ):
        assert (results / file).stat().st_size > 0
    for k in ("001", "002"):
        for file in (
            "rollouts.parquet",
            "scores.parquet",
            "advantages.parquet",
            "policy.json",
            "validation/metrics.json",
        ):
            assert (results / "runs/igpo/s1" / k / file).stat().st_size > 0
    assert not list(results.rglob("training_state*")), "the training state is temporary"
    assert "| igpo" in (results / "tables/main.md").read_text()


def test_the_last_policy_and_the_best_stay_and_the_table_says_which_was_taken(finished):
    results = finished / "results"
    run = results / "runs/igpo/s1"
    there = {path.parent.relative_to(run).as_posix() for path in run.rglob("model.safetensors")}
    assert there == {"002", "best"}
    dev = {
        k: json.loads((run / f"00{k}/validation/metrics.json").read_text())["overall"]["f1"]["mean"]
        for k in (1, 2)
    }
    best = json.loads((run / "best/policy.json").read_text())["selected"]
    assert best["validated"] == {"1": dev[1], "2": dev[2]}
    assert best["iteration"] == max(dev, key=lambda k: (dev[k], -k))
    evaluated = json.loads((results / "evaluations/igpo_best_dev_s1/metrics.json").read_text())["provenance"]
    assert (evaluated["iteration"], evaluated["selected"]) == (best["iteration"], "best_dev")
    assert evaluated["selection"] == best
    assert evaluated["policy"] == hashlib.sha256((run / "best/model.safetensors").read_bytes()).hexdigest()
    with (results / "tables/main.csv").open(newline="") as file:
        rows = {row["method"]: (row["iteration"], row["selected"]) for row in csv.DictReader(file)}
    assert rows["igpo"] == ("2", "last")
    assert rows["igpo_best_dev"] == (str(best["iteration"]), "best_dev")
    with (results / "tables/curves.csv").open(newline="") as file:
        curve = [(row["updates"], float(row["dev_f1"])) for row in csv.DictReader(file)]
    start = json.loads((results / "warmup/validation/metrics.json").read_text())["overall"]["f1"]["mean"]
    assert curve == [("0", start), ("1", dev[1]), ("2", dev[2])]


def test_the_age_of_weights_that_best_policies_share_reruns_nothing(finished):
    """Beyond `max-checksum-file-size`, where Snakemake has times alone to go by."""
    for path in (finished / "results/runs").rglob("model.safetensors"):
        os.utime(path)
    assert planned(finished, "--max-checksum-file-size", "0") == Counter()


def test_a_second_time_nothing_runs_and_that_is_quick(finished):
    start = time.monotonic()
    process = snakemake(finished)
    _profile, message = process.stderr.splitlines()
    assert message.startswith("Nothing to be done")
    assert time.monotonic() - start < 5 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_gamma_reruns_from_the_first_advantage_on(tree):
    change(tree, "advantage", gamma=0.9)
    rules = planned(tree)
    assert rules["advantage"] == rules["train"] == 2
    assert rules["rollout"] == rules["score"] == 1  # of the second iteration, with the new policy
    assert not {"corpus", "index", "questions", "model", "warmup", "coverage"} & set(rules)


def test_k_reruns_from_the_first_rollout_on(tree):
    change(tree, "rollout", k=3)
    rules = planned(tree)
    assert rules["rollout"] == 2
    assert rules["evaluation_rollout"] == rules["validation_rollout"] == 3
    assert not {"corpus", "index", "questions", "model", "warmup", "coverage"} & set(rules)


def test_one_more_seed_runs_that_seed_only(tree):
    change(tree, "run", seeds=[1, 2])
    rules = planned(tree)
    assert rules["rollout"] == rules["train"] == 2
    assert rules["evaluation_rollout"] == rules["validation_rollout"] == 2
    assert "warmup" not in rules


def test_comments_and_docstrings_rerun_nothing_and_code_does(tree):
    source = tree / "igpo" / "rollout.py"
    text = source.read_text()
    source.write_text(text.replace('"""', '"""Indeed. ', 1) + "\n# a comment\n")
    assert planned(tree) == Counter()
    source.write_text(text + "\nMORE = 1\n")
    rules = planned(tree)
    assert rules["rollout"] == 2
    assert "index" not in rules


def test_a_touched_input_reruns_nothing(tree):
    os.utime(tree / "corpus.jsonl")
    assert planned(tree) == Counter()


def test_an_iteration_made_again_gives_the_same_bytes(finished):
    patterns = ("runs/**/*.parquet", "runs/**/model.safetensors", "evaluations/**/*.parquet", "tables/*")
    before = digests(finished, *patterns)
    assert len(before) > 15
    process = snakemake(finished, "--forcerun", "results/runs/igpo/s1/002/rollouts.parquet")
    assert process.returncode == 0, process.stderr[-3000:]
    _profile, jobs, *stages = process.stderr.splitlines()
    assert re.fullmatch(r"\d+ jobs to run", jobs)
    at = stages.index("igpo seed 1, iteration 2 of 2: rollout begins")
    ended = r"igpo seed 1, iteration 2 of 2: rollout, 4 trajectories, .* \(\d+ s\)"
    assert any(re.fullmatch(ended, line) for line in stages[at:])
    log = max((finished / ".snakemake/log").iterdir()).read_text()
    assert "rule rollout:" in log  # Snakemake's own words
    assert digests(finished, *patterns) == before


def test_an_index_that_is_there_is_made_again(finished):
    """With the same bytes, so that nothing behind it runs again."""
    before = digests(finished, "index/**/*.arrow", "index/**/*.json")
    manifest = "results/index/bm25/manifest.json"
    process = snakemake(finished, "--forcerun", manifest, "--", manifest)
    assert process.returncode == 0, process.stderr[-3000:]
    assert digests(finished, "index/**/*.arrow", "index/**/*.json") == before
    assert not planned(finished)["rollout"]


def test_dvc_publishes_reports_and_then_finds_nothing_to_do(finished):
    subprocess.run(["git", "init", "--quiet"], cwd=finished, check=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def dvc(*command: str) -> str:
        process = subprocess.run(
            ["dvc", *command], cwd=finished, env=environment, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    dvc("repro")
    assert (finished / "reports/curves.csv").read_bytes() == (
        finished / "results/tables/curves.csv"
    ).read_bytes()
    assert "Running stage 'index'" not in dvc("repro")
    os.utime(finished / "corpus.jsonl")
    assert "Running stage 'index'" in dvc("repro")
    output = json.loads(dvc("metrics", "show", "--json"))
    metrics = output[""]["data"][str(Path("reports") / "metrics.json")]["data"]
    assert set(metrics) == {"warmup", "igpo", "igpo_best_dev"}
    plot = json.loads(dvc("plots", "show", "--json"))["data"]["dev F1"][0]["content"]
    with (finished / "reports/curves.csv").open(newline="") as file:
        points = [(row["arm"], row["updates"], row["dev_f1"]) for row in csv.DictReader(file)]
    assert [(row["arm"], row["updates"], row["dev_f1"]) for row in plot["data"]["values"]] == points
    assert plot["encoding"]["color"]["field"] == "arm", "else all methods are one line"


def test_a_failed_stage_leaves_no_output_and_its_log(tree):
    change(tree, "warmup", traces=10_000)
    process = snakemake(tree, "results/warmup/policy.json")
    assert process.returncode == 1
    log = (tree / "logs/warmup.log").read_text()
    assert log.splitlines()[-1].startswith("error: ")
    assert re.search(r"warmup failed \(\d+ s\); its log: logs/warmup.log\n    error: .*10000", process.stderr)
    assert "CalledProcessError" not in process.stderr
    assert not (tree / "results/warmup/policy.json").exists()


def test_shards_are_encoded_by_jobs_of_their_own(tree):
    change(tree, "index", kinds=["bm25", "dense"], shards=2)
    process = snakemake(tree, "results/index/dense/manifest.json")
    assert process.returncode == 0, process.stderr[-3000:]
    assert len(list((tree / "logs").glob("encode_*.log"))) == 2
    manifest = json.loads((tree / "results/index/dense/manifest.json").read_text())
    assert (manifest["kind"], manifest["rows"]) == ("dense", PASSAGES)
    assert not (tree / "results/index/vectors/1").exists(), "vectors are temporary"


def test_a_table_of_the_paper_is_made_and_printed_and_f1_is_grpo_to_the_bit(finished):
    assert snakemake(finished).returncode == 0  # a test before may have taken the warm start away
    collapse = planned(finished, "tables/collapse")
    assert collapse == {"collapse": 1, "show_table": 1}, "it trains nothing"
    tables = ("ablation", "per_question", "time", "collapse", "single_turn", "gamma")
    process = snakemake(finished, *(f"tables/{table}" for table in tables))
    assert process.returncode == 0, process.stderr[-3000:]
    for table in tables:
        text = (finished / "results/tables" / f"{table}.md").read_text()
        assert text in process.stdout
        for suffix in (".csv", ".md", ".tex"):
            assert (finished / "results/tables" / f"{table}{suffix}").exists()
    hashes = {
        arm: list(digests(finished, f"runs/{arm}/**/*.parquet", f"runs/{arm}/**/model.safetensors").values())
        for arm in ("f1", "grpo")
    }
    assert hashes["f1"] == hashes["grpo"]
    assert len(hashes["f1"]) == 2 * 3 + 1  # iterations; rollouts, scores, advantages; the last weights
    first = finished / "results/runs/grpo/s1/001/rollouts.parquet"  # a copy of igpo's
    words = "--arm grpo --policy results/warmup --questions results/questions/train.parquet"
    words += " --index results/index/bm25 --seed 1 --iteration 1 --out made_again.parquet"
    subprocess.run([sys.executable, "-m", "igpo.rollout", *words.split()], cwd=finished, check=True)
    assert (finished / "made_again.parquet").read_bytes() == first.read_bytes()
    health = json.loads((finished / "results/runs/igpo/s1/002/health.json").read_text())
    assert 0 <= health["flat_advantage"] <= 1
    assert health["entropy"] > 0


def test_a_run_that_is_killed_between_updates_goes_on_to_the_same_and_may_have_more(finished, tmp_path):
    tree, runs = tmp_path / "killed", "results/runs/igpo/s1"
    shutil.copytree(
        finished, tree, ignore=shutil.ignore_patterns("runs", "evaluations", ".git", "*.sock", "ml*")
    )
    change(tree, "run", keep_training_state=True)
    command = [sys.executable, "-m", "snakemake"]
    with subprocess.Popen(command, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and not (tree / runs / "001/validation/rollouts.parquet").exists():
            time.sleep(0.1)
        running.kill()
    assert not (tree / runs / "002/policy.json").exists()
    for words in (["--unlock"], []):
        process = snakemake(tree, *words)
        assert process.returncode == 0, process.stderr[-3000:]
    patterns = ("runs/igpo/**/*.parquet", "runs/igpo/**/model.safetensors", "evaluations/igpo*/*.parquet")
    patterns += ("tables/main.csv", "tables/curves.csv")
    hashes = digests(tree, *patterns)
    assert hashes.pop(f"{runs}/001/best/model.safetensors"), "from which a longer run goes on"
    assert hashes == digests(finished, *patterns)
    change(tree, "run", iterations=3)
    rules = planned(tree)
    assert rules["train"] == rules["rollout"] == rules["score"] == rules["validation_rollout"] == 1
    assert (rules["best_so_far"], rules["best"], rules["evaluation_rollout"]) == (1, 1, 2)
