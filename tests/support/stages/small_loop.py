"""A small model that was taught the protocol, its questions and index: where a small loop begins."""

import json
from functools import cache
from pathlib import Path

import small_llama
import small_qwen
from small_index import PARAMS, build, call, write_corpus
from tiny import tiny

from igpo import warmup
from igpo.experiment import schema
from pipeline import storage
from pipeline.settings import apply_arm, read_params

FAMILIES = {"qwen2": small_qwen, "llama": small_llama}
# The same words twice, so that half of what the warm start samples searches, and answers, amiss.
ASKED = [
    ("q1", "Which gas?", "Ne", ["neon"]),
    ("q2", "Which gas?", "Ar", ["argon"]),
]
SETTINGS = read_params([PARAMS])
SETTINGS["train"]["minibatches"] = 1  # a step an iteration: there are two questions
# What methods can do that no arm of params.yaml asks for.
SETTINGS["arms"] |= {
    "gtpo_by_turn": {"advantage": {"method": "gtpo", "scope": "group_turn", "gamma": 0.9}},
    "log_prob_joint": {"advantage": {"normalisation": "joint"}},
    "joint_by_turn": {"advantage": {"normalisation": "joint", "scope": "group_turn"}},
}


def stage(main, section: str, *files: object, arm: str | None = None, **over: object) -> None:
    """Run a stage with the repository's parameters, an arm's and `over`."""
    call(main, *files, "--config", json.dumps(apply_arm(SETTINGS, arm)[section] | over))


def loop_start(factory, family: str = "qwen2") -> Path:
    """Folder with corpus.parquet, bm25/, questions.parquet, the random model base/ and the warm start warm/.

    Made by the real stages, once per test run and family; `factory` is pytest's tmp_path_factory.
    """
    return _loop_start(factory.getbasetemp() / f"loop_{family}", family)


@cache
def _loop_start(folder: Path, family: str) -> Path:
    folder.mkdir()
    words = FAMILIES[family].tokenizer()
    model = tiny(family, len(words))
    model.generation_config.eos_token_id = words.convert_tokens_to_ids(list(FAMILIES[family].ENDS))
    model.save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    index = build(write_corpus(folder), "bm25", folder / "bm25")
    rows = [
        {"question_id": key, "benchmark": "b", "question": text, "answers": [answer], "supporting_ids": ids}
        | {"hops": 1, "split": "train", "type": ""}
        for key, text, answer, ids in ASKED
    ]
    storage.write(rows, schema.QUESTIONS, folder / "questions.parquet", schema.QUESTIONS_KEY)
    options = ["--policy", folder / "base", "--questions", folder / "questions.parquet", "--index", index]
    learned = {"benchmarks": [], "traces": 2, "batch": 2, "epochs": 200, "lr": 5e-3, "k": 1}
    stage(warmup.main, "warmup", *options, "--out", folder / "warm", **learned)
    return folder
