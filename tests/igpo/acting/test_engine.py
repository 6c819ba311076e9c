"""Both engines: tokens depend on prompt and seed alone, log-probabilities are the model's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_index import build, section_of, write_corpus

from igpo import rollout
from igpo.acting.engine import Request, TransformersEngine, VllmEngine, open_engine
from igpo.experiment import schema
from igpo.experiment.policy import load, load_tokenizer
from pipeline import storage
from pipeline.errors import UserError

pytestmark = pytest.mark.slow

TEXTS = ["The capital of France is", "Herman Melville wrote", "1, 2, 3, 4,", "Water is made of"]


@pytest.fixture(scope="module")
def prompts(base_model):
    tokenizer = load_tokenizer(base_model)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module", params=[VllmEngine, TransformersEngine])
def engine(request, base_model):
    return request.param(base_model, 256, load_tokenizer(base_model), True)


def test_a_sequence_does_not_depend_on_its_batch(engine, prompts):
    requests = [Request(prompt, seed) for seed, prompt in enumerate(prompts)]
    together = engine.generate(requests, 12, 1.0)
    alone = [engine.generate([request], 12, 1.0)[0] for request in requests]
    assert [one.ids for one in alone] == [one.ids for one in together]
    assert engine.generate([Request(prompts[0], 9)], 12, 1.0)[0].ids != together[0].ids


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_a_sequence_does_not_depend_on_when_it_comes(engine, prompts, order):
    requests = [Request(prompt, seed) for seed, prompt in enumerate(prompts)]
    together = engine.generate(requests, 12, 1.0)
    generations = {}
    for number in order:
        engine.submit(number, requests[number], 12, 1.0, ())
        generations |= engine.step()
    while len(generations) < len(requests):
        generations |= engine.step()
    assert [generations[number].ids for number in range(4)] == [one.ids for one in together]


@pytest.mark.parametrize("gpus", [2, 7])
def test_a_model_that_cannot_be_split_is_one_error(base_model, gpus):
    """SmolLM2 has nine heads."""
    with pytest.raises(UserError, match=f"tensor_parallel: {gpus} does not divide the 9 attention heads"):
        open_engine(base_model, "vllm", 256, load_tokenizer(base_model), False, gpus)


@pytest.mark.skipif(torch.cuda.device_count() >= 3, reason="there are as many")
@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_more_gpus_than_there_are_is_one_error(base_model, kind):
    with pytest.raises(UserError, match=r"tensor_parallel: 3 GPUs are asked for and \d are here"):
        open_engine(base_model, kind, 256, load_tokenizer(base_model), False, 3)


@pytest.mark.parametrize("kind", [VllmEngine, TransformersEngine])
def test_logprobs_are_the_models(kind, prompts, base_model, monkeypatch):
    monkeypatch.setattr("igpo.acting.engine.compute_dtype", lambda: torch.float32)
    engine = kind(base_model, 256, load_tokenizer(base_model), False)
    generation = engine.generate([Request(prompts[0], 1)], 8, 1.0)[0]
    model = load(base_model, torch.float32, "eager").eval()
    with torch.inference_mode():
        logits = model(torch.tensor([prompts[0] + generation.ids])).logits[0].float().log_softmax(-1)
    first = len(prompts[0]) - 1
    expected = [float(logits[first + i, token]) for i, token in enumerate(generation.ids)]
    assert generation.logprobs == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", [VllmEngine, TransformersEngine])
def test_an_engine_without_texts_to_stop_at_samples_the_same(kind, base_model):
    tokenizer = load_tokenizer(base_model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Say yes."}], add_generation_prompt=True, tokenize=False
    )
    requests = [Request(tokenizer(text)["input_ids"], seed) for seed in range(4)]
    without, having = (
        kind(base_model, 256, tokenizer, stops).generate(requests, 60, 0.7) for stops in (False, True)
    )
    assert without == having
    ended = [one for one in without if one.stopped]
    assert ended
    assert {one.ids[-1] for one in ended} == {tokenizer.eos_token_id}


def test_it_stops_at_the_text_and_at_the_limit(engine, prompts):
    stopped = engine.generate([Request(prompts[2], 0)], 20, 0.0, stops=(",",))[0]
    cut = engine.generate([Request(prompts[0], 0)], 3, 0.0)[0]
    assert stopped.stopped
    assert len(stopped.ids) < 20
    assert (len(cut.ids), cut.stopped) == (3, False)


def test_vllm_stops_at_texts_that_are_control_tokens():
    """As the marks of a protocol are in some checkpoints; vLLM leaves them out of its text by default."""
    engine = VllmEngine.__new__(VllmEngine)
    engine.ends = [1]
    sampling = engine._sampling(Request([0], 0), 5, 1.0, ("</search>",))
    assert (sampling.stop, sampling.stop_token_ids) == (["</search>"], [1])
    assert sampling.include_stop_str_in_output
    assert not sampling.skip_special_tokens


def test_a_folder_that_is_no_model_is_one_error(tmp_path):
    with pytest.raises(UserError, match="not a model folder"):
        open_engine(tmp_path, "transformers", 64, None, False)


HANDLER = """
import ctypes, pathlib, signal, sys
from igpo import rollout
rollout.main(sys.argv[1:])
action = (ctypes.c_void_p * 20)()  # struct sigaction begins with the handler
ctypes.CDLL(None).sigaction(signal.SIGSEGV, None, ctypes.byref(action))
for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
    low, high = (int(place, 16) for place in line.split()[0].split("-"))
    if low <= (action[0] or 0) < high:
        print(line.split()[-1])
"""


def rollout_words(policy: Path, folder: Path, out: Path, **settings: object) -> list[str]:
    """Command line of a rollout over a small index and two questions, made in `folder`."""
    index = build(write_corpus(folder), "bm25", folder / "bm25")
    row = {"benchmark": "b", "answers": ["x"], "split": "test", "supporting_ids": [], "hops": 1, "type": ""}
    rows = [{**row, "question_id": text, "question": text} for text in ("noble gas", "a whale")]
    storage.write(rows, schema.QUESTIONS, folder / "q.parquet", schema.QUESTIONS_KEY)
    over = {"protocol": "rag", "benchmarks": [], "turn_tokens": 4, "max_tokens": 512, **settings}
    section = section_of("rollout", **over)
    words = ["--policy", policy, "--questions", folder / "q.parquet", "--index", index]
    return [*map(str, words), "--out", str(out), "--config", json.dumps(section)]


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_trajectories_longer_than_the_models_context_are_refused(base_model, name):
    with pytest.raises(UserError, match=r"max_tokens: 8193 exceeds .*'s context, 8192$"):
        open_engine(base_model, name, 8193, None, False)


def test_how_many_advance_together_changes_nothing(base_model, tmp_path):
    out = tmp_path / "r.parquet"
    words = rollout_words(base_model, tmp_path, out, engine="transformers", at_once=None)
    rollout.main(words)
    together = out.read_bytes()
    rollout.main([*words, "--set", "rollout.at_once=3"])
    assert out.read_bytes() == together


def test_the_jvm_keeps_sigsegv_beside_vllm(base_model, tmp_path):
    words = rollout_words(base_model, tmp_path, tmp_path / "r.parquet", samples=1)
    command = [sys.executable, "-c", HANDLER, *words]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1].endswith("libjvm.so")
