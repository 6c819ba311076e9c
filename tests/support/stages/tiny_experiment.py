"""The tiny experiment: the whole loop in a copy of the repository, with a tiny random model, in a minute."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from root import ROOT
from tiny import tiny

from igpo.experiment.policy import load_tokenizer
from pipeline import storage
from pipeline.settings import merge
from retrieval import corpus

COPIED = (
    "Snakefile",
    "params.yaml",
    "workflow",
    "profiles",
    "pipeline",
    "igpo",
    "retrieval",
    "dvc.yaml",
    ".dvc",
    ".dvcignore",
)
PASSAGES = 120
SETTINGS = {
    "run": {
        "arms": ["igpo"],
        "baselines": [],
        "iterations": 2,
        "validate_every": 1,
        "validation_questions": 4,
        "select": ["last", "best_dev"],
        "keep_policies": ["last", "best"],
    },
    "corpus": {"source": "corpus.jsonl"},
    "index": {"kinds": ["bm25"]},
    "model": {"source": "tiny"},
    "questions": {"source": "questions_{split}.jsonl"},
    "warmup": {"benchmarks": ["titles"], "traces": 4, "batch": 2},
    "rollout": {
        "engine": "transformers",
        "benchmarks": ["titles"],
        "questions": 2,
        "samples": 2,
        "max_turns": 2,
        "turn_tokens": 8,
    },
    "evaluate": {"bootstrap": 50, "rollout": {"questions": 4, "temperature": 0.0, "samples": 1}},
    "tables": {"baseline": "warmup"},
}


def write_inputs(folder: Path, base_model: Path) -> None:
    """Real leads as corpus, a question about each of some of them, a random model, a real tokenizer."""
    whole = folder / "whole.parquet"
    corpus.main(["--config", '{"source": "vital"}', "--out", str(whole)])
    passages = storage.read(whole, storage.CORPUS).slice(0, PASSAGES).to_pylist()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(passage) + "\n" for passage in passages))
    rows = [
        {
            "question_id": f"q{number}",
            "benchmark": "titles",
            "question": f"Which article is described as {passage['text'].partition('. ')[0]}?",
            "answers": [passage["text"].split()[0]],
            "supporting_ids": [passage["id"]],
            "split": ("train", "test")[number % 2] if number < 40 else "dev",
        }
        for number, passage in enumerate(passages[:48])
    ]
    for split in ("train", "dev", "test"):
        lines = [json.dumps(row) + "\n" for row in rows if row["split"] == split]
        (folder / f"questions_{split}.jsonl").write_text("".join(lines))
    tokenizer = load_tokenizer(base_model)
    policy = tiny("llama", len(tokenizer))
    policy.config.eos_token_id = tokenizer.eos_token_id
    policy.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")


def make(folder: Path, base_model: Path, **over: Any) -> Path:
    """A copy of the repository in `folder` with the experiment's inputs and parameters, changed by `over`."""
    folder.mkdir(exist_ok=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    write_inputs(folder, base_model)
    params = merge(merge(yaml.safe_load((ROOT / "params.yaml").read_text()), SETTINGS), over)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def snakemake(folder: Path, *options: str, offline: bool = False) -> subprocess.CompletedProcess:
    """Run `snakemake` in `folder`; `offline` gives it a network of its own that has loopback only."""
    command = [sys.executable, "-m", "snakemake", *options]
    if offline:
        command = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def can_cut_network() -> bool:
    """Whether this machine lets a user make a network namespace."""
    return bool(shutil.which("unshare") and shutil.which("ip")) and not (
        subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True).returncode
    )


def digests(tree: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the result files that match."""
    paths = {path for pattern in patterns for path in (tree / "results").glob(pattern)}
    files = sorted(path for path in paths if not path.name.endswith(".cost.json"))
    return {str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
