"""A Qwen2.5-like and a Llama-3-like model folder through the whole loop: templates, tools, ends."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from small_loop import FAMILIES, loop_start, stage

from igpo import advantage, rollout, score, train
from igpo.acting.engine import Request, TransformersEngine
from igpo.experiment import schema
from igpo.experiment.policy import load, load_tokenizer
from igpo.protocols import MODULES, prepare
from igpo.protocols.renderer import Renderer
from pipeline import storage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def start(tmp_path_factory, family) -> Path:
    return loop_start(tmp_path_factory, family)


@pytest.fixture(scope="module")
def loop(start, tmp_path_factory):
    """Folder of one iteration from the warm start, with every stage's files."""
    folder = tmp_path_factory.mktemp("iteration")
    policy, questions = ["--policy", start / "warm"], ["--questions", start / "questions.parquet"]
    played = {"engine": "transformers", "benchmarks": [], "samples": 4}
    played |= {"turn_tokens": 160, "max_tokens": 2000}
    files = [*policy, *questions, "--index", start / "bm25", "--out", folder / "r.parquet"]
    stage(rollout.main, "rollout", *files, **played)
    rollouts = ["--rollouts", folder / "r.parquet"]
    stage(score.main, "score", *policy, *rollouts, *questions, "--out", folder / "s.parquet")
    credit = [*rollouts, "--scores", folder / "s.parquet"]
    stage(advantage.main, "advantage", *credit, "--out", folder / "a.parquet")
    credit += ["--advantages", folder / "a.parquet"]
    stage(train.main, "train", *policy, *credit, "--out", folder / "next")
    return folder


def test_it_searches_and_answers_in_the_protocol(start, loop):
    trajectories = schema.trajectories(storage.read(loop / "r.parquet", schema.ROLLOUTS).to_pylist())
    assert len(trajectories) == 8
    played = [rows for rows in trajectories if rows[-1]["stop"] == "answered" and len(rows) == 3]
    assert len(played) >= 2  # sampled at temperature 1 from a model that has barely learned
    end = load_tokenizer(start / "warm").eos_token_id
    for rows in played:
        assert rows[1]["tool"] == "web_search"
        assert rows[1]["hit_ids"]
        assert [row["policy_ids"][-1] for row in rows[1:]] == [end, end]


def test_it_is_scored_and_trained(start, loop):
    scores = storage.read(loop / "s.parquet", schema.SCORES).to_pylist()
    gains = [row["info_gain"] for row in scores if row["info_gain"] is not None]
    assert gains
    assert all(row["gold_logprob"] < 0 for row in scores if row["outcome"] is None)
    assert pq.read_metadata(loop / "r.parquet").metadata[b"protocol"] == b"igpo"
    before, after = (
        torch.cat([weight.flatten() for weight in load(folder, torch.float32, "sdpa").parameters()])
        for folder in (start / "warm", loop / "next")
    )
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    assert load_tokenizer(loop / "next").chat_template == load_tokenizer(start / "warm").chat_template


def test_every_end_token_of_the_model_ends_a_turn(start, family):
    """Ends of turns, messages and texts: all count, none is text. Training keeps the list."""
    words = load_tokenizer(start / "base")
    engine = TransformersEngine(start / "base", 512, words, False)
    renderer = Renderer(words, prepare("igpo"))
    assert engine.ends == set(words.convert_tokens_to_ids(list(FAMILIES[family].ENDS)))
    assert TransformersEngine(start / "warm", 512, words, False).ends == engine.ends
    prompt = renderer.prompt("Who?")
    with torch.no_grad():
        hidden = engine.model.model(torch.tensor([prompt])).last_hidden_state[0, -1]
        for end in sorted(engine.ends):
            engine.model.lm_head.weight.zero_()
            engine.model.lm_head.weight[end] = hidden  # so that this token has the highest logit
            ended = engine.generate([Request(prompt, 0)], 4, 0.0)[0]
            assert (ended.ids, ended.stopped) == ([end], True)
            assert renderer.decode(ended.ids, ended.stopped) == ""


@pytest.mark.parametrize("name", MODULES)
def test_rollouts_are_scored_in_their_protocol(start, tmp_path, name):
    base, files = start / "base", ["--questions", start / "questions.parquet", "--index", start / "bm25"]
    over = {"engine": "transformers", "benchmarks": [], "turn_tokens": 4, "samples": 1, "protocol": name}
    stage(rollout.main, "rollout", "--policy", base, *files, "--out", tmp_path / "r.parquet", **over)
    policy = ["--policy", base, "--rollouts", tmp_path / "r.parquet"]
    stage(score.main, "score", *policy, *files[:2], "--out", tmp_path / "s.parquet", dtype="float32")
    row = storage.read(tmp_path / "r.parquet", schema.ROLLOUTS).to_pylist()[0]
    gold_logprob = storage.read(tmp_path / "s.parquet", schema.SCORES).to_pylist()[0]["gold_logprob"]
    ids, chosen = Renderer(load_tokenizer(base), prepare(name)).forced_answer("Ne")
    context = row["observation_ids"]
    with torch.inference_mode():
        model = load(base, torch.float32, "sdpa").eval()
        logits = model(torch.tensor([context + ids])).logits[0].log_softmax(-1)
    expected = sum(float(logits[len(context) + i - 1, ids[i]]) for i in chosen) / len(chosen)
    assert gold_logprob == pytest.approx(expected, abs=1e-4)
