"""A Qwen2.5-like model folder through the whole loop: tokenizer, chat template, tools, end tokens."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import tiny
from small_index import build, call, write_corpus
from small_qwen import tokenizer

from igpo import advantage, rollout, schema, score, train, warmup
from igpo.engine import Request, TransformersEngine
from igpo.model import load, load_tokenizer
from igpo.protocol import Renderer
from igpo.protocols import PROTOCOLS, prepare
from retrieval import tables

ROOT = Path(__file__).parents[1]
ASKED = [
    ("q1", "Which element has the symbol Ne?", "Ne", ["neon"]),
    ("q2", "Which element has the symbol Ar?", "Ar", ["argon"]),
]


def stage(main, section: str, *files: object, **over: object) -> None:
    """Run a stage with the repository's parameters and `over`."""
    settings = [
        word for key, value in over.items() for word in ("--set", f"{section}.{key}={json.dumps(value)}")
    ]
    call(main, *files, "--params", ROOT / "params.yaml", *settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random Qwen2 model with its tokenizer; the model ends a text with a token of its own."""
    folder, words = tmp_path_factory.mktemp("qwen") / "base", tokenizer()
    model = tiny("qwen2", len(words))
    model.generation_config.eos_token_id = [words.eos_token_id, words.pad_token_id]
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loop(base):
    """Folder of one iteration from a warm start, with every stage's files."""
    folder = base.parent
    index = build(write_corpus(folder), "bm25", folder / "bm25")
    rows = [
        {"question_id": key, "benchmark": "b", "question": text, "answers": [answer], "supporting_ids": found}
        | {"hops": 1, "split": "train", "type": ""}
        for key, text, answer, found in ASKED
    ]
    tables.write(rows, schema.QUESTIONS, folder / "questions.parquet", schema.QUESTIONS_KEY)
    given = ["--questions", folder / "questions.parquet", "--index", index]
    learned = {"benchmarks": [], "traces": 2, "batch": 2, "epochs": 150, "lr": 5e-3, "k": 1}
    stage(warmup.main, "warmup", "--policy", base, *given, "--out", folder / "warm", **learned)
    played = {"engine": "transformers", "benchmarks": [], "turn_tokens": 160, "max_tokens": 2000}
    stage(
        rollout.main, "rollout", "--policy", folder / "warm", *given, "--out", folder / "r.parquet", **played
    )
    policy = ["--policy", folder / "warm", "--rollouts", folder / "r.parquet"]
    stage(score.main, "score", *policy, *given[:2], "--out", folder / "s.parquet")
    credit = ["--scores", folder / "s.parquet"]
    stage(advantage.main, "advantage", *policy[2:], *credit, "--out", folder / "a.parquet")
    credit += ["--advantages", folder / "a.parquet"]
    stage(train.main, "train", *policy, *credit, "--out", folder / "next")
    return folder


def test_it_searches_and_answers_in_the_protocol(loop):
    trajectories = schema.trajectories(tables.read(loop / "r.parquet", schema.ROLLOUTS).to_pylist())
    assert len(trajectories) == 8
    played = [rows for rows in trajectories if rows[-1]["stop"] == "answered" and len(rows) == 3]
    assert len(played) >= 4
    end = load_tokenizer(loop / "warm").convert_tokens_to_ids("<|im_end|>")
    for rows in played:
        assert rows[1]["tool"] == "web_search"
        assert rows[1]["hit_ids"]
        assert [row["policy_ids"][-1] for row in rows[1:]] == [end, end]


def test_it_is_scored_and_trained(loop):
    scores = tables.read(loop / "s.parquet", schema.SCORES).to_pylist()
    gains = [row["info_gain"] for row in scores if row["info_gain"] is not None]
    assert gains
    assert all(row["gold_logprob"] < 0 for row in scores if row["outcome"] is None)
    assert pq.read_metadata(loop / "r.parquet").metadata[b"protocol"] == b"igpo"
    before, after = (
        torch.cat([weight.flatten() for weight in load(loop / name, torch.float32, "sdpa").parameters()])
        for name in ("warm", "next")
    )
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    assert load_tokenizer(loop / "next").chat_template == load_tokenizer(loop / "warm").chat_template


def test_every_end_token_of_the_model_ends_a_turn(base):
    """Qwen2.5 ends a turn with <|im_end|> and a text with <|endoftext|>; both count, neither is text."""
    engine, words = TransformersEngine(base, 512), load_tokenizer(base)
    renderer = Renderer(words, prepare("igpo"))
    assert engine.ends == {words.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")}
    asked = renderer.prompt("Who?")
    with torch.no_grad():
        hidden = engine.model.model(torch.tensor([asked])).last_hidden_state[0, -1]
        for end in sorted(engine.ends):
            engine.model.lm_head.weight.zero_()
            engine.model.lm_head.weight[end] = hidden  # so that this token has the highest logit
            ended = engine.generate([Request(asked, 0)], 4, 0.0)[0]
            assert (ended.ids, ended.stopped) == ([end], True)
            assert renderer.decode(ended.ids, ended.stopped) == ""


@pytest.mark.parametrize("name", PROTOCOLS)
def test_rollouts_are_scored_in_their_protocol(base, loop, tmp_path, name):
    files = ["--questions", loop / "questions.parquet", "--index", loop / "bm25"]
    over = {"engine": "transformers", "benchmarks": [], "turn_tokens": 4, "samples": 1, "protocol": name}
    stage(rollout.main, "rollout", "--policy", base, *files, "--out", tmp_path / "r.parquet", **over)
    policy = ["--policy", base, "--rollouts", tmp_path / "r.parquet"]
    stage(score.main, "score", *policy, *files[:2], "--out", tmp_path / "s.parquet", dtype="float32")
    row = tables.read(tmp_path / "r.parquet", schema.ROLLOUTS).to_pylist()[0]
    found = tables.read(tmp_path / "s.parquet", schema.SCORES).to_pylist()[0]["gold_logprob"]
    ids, chosen = Renderer(load_tokenizer(base), prepare(name)).forced_answer("Ne")
    context = row["observation_ids"]
    with torch.inference_mode():
        model = load(base, torch.float32, "sdpa").eval()
        logits = model(torch.tensor([context + ids])).logits[0].log_softmax(-1)
    expected = sum(float(logits[len(context) + i - 1, ids[i]]) for i in chosen) / len(chosen)
    assert found == pytest.approx(expected, abs=1e-4)
