"""Text generation: vLLM, or transformers if vLLM can't run; the same results type.

With transformers a sequence's tokens depend on its prompt and seed alone. So they do with vLLM, but on
processors whose kernels round a row by its neighbours, as AMX's in bf16: there a few of 24 changed.
"""

import ctypes
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from igpo.experiment.policy import check_folder, check_weights, context, load
from pipeline import cost, storage
from pipeline.devices import compute_dtype, device
from pipeline.errors import UserError, one_line
from pipeline.log import log
from retrieval.encoder.folder import UNREADABLE

# vLLM reads these when it is imported.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
# By default it leaves one core of a CPU to itself and pins its threads to the others.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
KV_BYTES = 2 << 30  # vLLM's key-value cache on a CPU
KV_BLOCK = 32  # tokens: the smallest unit that its prefix cache shares on a CPU (default: 128)


class Generation(NamedTuple):
    """Sampled tokens and their log-probabilities at temperature 1."""

    ids: list[int]
    logprobs: list[float]
    stopped: bool  # True: end-of-turn or stop text; False: the token limit


class Request(NamedTuple):
    """A prompt to continue, and the seed of its sampling."""

    prompt: list[int]
    seed: int


@contextmanager
def keeping_sigsegv() -> Iterator[None]:
    """Put SIGSEGV's handler back at the end.

    vLLM loads libtvm_ffi, which takes the signal over; a JVM that runs already needs it for its own work and
    would bring the process down, some minutes later.
    """
    action, libc = ctypes.create_string_buffer(256), ctypes.CDLL(None)  # struct sigaction has 152 bytes
    libc.sigaction(signal.SIGSEGV, None, action)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGSEGV, action, None)


class VllmEngine:
    """vLLM over a model folder."""

    @keeping_sigsegv()
    def __init__(self, policy: Path, max_tokens: int, tokenizer: Any, stops: bool, gpus: int = 1):
        """Start vLLM in this process, for sequences of at most `max_tokens` tokens, over so many GPUs.

        Only with `stops` can they end at texts.

        Raises UserError for weights with NaN, from which vLLM would sample without a word.
        """
        check_weights(policy)
        from vllm import LLM

        cpu = not torch.cuda.is_available()
        # Per-request seeds fail on a CPU once a prompt is split, so no chunked prefill there.
        special: dict[str, Any] = (
            {
                "enforce_eager": True,
                "kv_cache_memory_bytes": KV_BYTES,
                "block_size": KV_BLOCK,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(max_tokens, 2048),
            }
            if cpu
            else {}
        )
        self.llm = LLM(
            model=str(policy),
            dtype="bfloat16" if compute_dtype() is torch.bfloat16 else "float32",
            max_model_len=max_tokens,
            tensor_parallel_size=gpus,
            enable_prefix_caching=True,
            disable_log_stats=True,
            skip_tokenizer_init=not stops,  # loading, copying and trying it takes half of the start
            seed=0,
            **special,
        )
        self.ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        log.info("loaded %s on %s", policy, device())
        cost.note(device=device())

    def forget(self) -> None:
        """Drop the keys and values of earlier prompts: what comes next goes as in a new engine."""
        self.llm.reset_prefix_cache()

    def generate(
        self, requests: Sequence[Request], max_new: int, temperature: float, stops: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue every prompt by at most `max_new` tokens; one ends if it holds a text of `stops`."""
        params = [self._sampling(request, max_new, temperature, stops) for request in requests]
        prompts: Any = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        with uncompiled():
            outputs: Any = self.llm.generate(prompts, params, use_tqdm=False)
        return list(map(generation_of, outputs))

    def submit(
        self, number: int, request: Request, max_new: int, temperature: float, stops: Sequence[str]
    ) -> None:
        """Begin to continue a prompt, while others are worked on; `step` returns the result by `number`."""
        prompt: Any = {"prompt_token_ids": list(request.prompt)}
        params = self._sampling(request, max_new, temperature, stops)
        self.llm.llm_engine.add_request(str(number), prompt, params)

    def step(self) -> list[tuple[int, Generation]]:
        """Make a token of everything submitted; returns what is finished."""
        with uncompiled():
            outputs: Any = self.llm.llm_engine.step()
        return [(int(output.request_id), generation_of(output)) for output in outputs if output.finished]

    def _sampling(self, request: Request, max_new: int, temperature: float, stops: Sequence[str]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=temperature,
            seed=request.seed,
            max_tokens=max_new,
            logprobs=0,
            stop=list(stops),
            stop_token_ids=self.ends,  # beside those of generation_config.json
            include_stop_str_in_output=True,
            skip_special_tokens=False,  # a text of `stops` may be one
            detokenize=bool(stops),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def uncompiled() -> Any:
    """On a CPU, compiling the ranks of log-probabilities takes 3 s of each start and saves nothing."""
    return torch._dynamo.config.patch(disable=not torch.cuda.is_available())


def generation_of(output: Any) -> Generation:
    """What vLLM made of one request."""
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    logprobs = [step[token].logprob for token, step in zip(ids, completion.logprobs, strict=True)]
    return Generation(ids, logprobs, completion.finish_reason == "stop")


class TransformersEngine:
    """Plain transformers: slower on every machine, but runs wherever torch does."""

    def __init__(self, policy: Path, max_tokens: int, tokenizer: Any, stops: bool, gpus: int = 1):
        """Load the model folder. Raises UserError for more than one GPU."""
        if gpus > 1:
            raise UserError(
                f"tensor_parallel: {gpus}: engine transformers runs on one GPU; take engine: vllm"
            )
        self.waiting: deque[tuple[int, Request, int, float, Sequence[str]]] = deque()
        self.model = load(policy, compute_dtype(), "sdpa").eval()
        self.tokenizer = tokenizer
        # as vLLM: some families end a turn and a text with different tokens
        more = self.model.generation_config.eos_token_id or []
        self.ends = {self.tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])}

    def forget(self) -> None:
        """Nothing is kept from one sequence to the next."""

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], max_new: int, temperature: float, stops: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue every prompt by at most `max_new` tokens; one ends if it holds a text of `stops`."""
        return [self._one(request, max_new, temperature, stops) for request in requests]

    def submit(
        self, number: int, request: Request, max_new: int, temperature: float, stops: Sequence[str]
    ) -> None:
        """Put a prompt to be continued at the end of those that wait."""
        self.waiting.append((number, request, max_new, temperature, stops))

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Generation]]:
        """Continue the prompt that waits longest; returns it by its number."""
        number, request, max_new, temperature, stops = self.waiting.popleft()
        return [(number, self._one(request, max_new, temperature, stops))]

    def _one(self, request: Request, max_new: int, temperature: float, stops: Sequence[str]) -> Generation:
        generator = torch.Generator().manual_seed(request.seed)
        tokens, cache = torch.tensor([request.prompt]), None
        ids: list[int] = []
        logprobs: list[float] = []
        while len(ids) < max_new:
            step = self.model(tokens.to(self.model.device), past_key_values=cache, logits_to_keep=1)
            cache = step.past_key_values
            logits = step.logits[0, -1].float().cpu()
            if temperature > 0:
                draw = torch.softmax((logits - logits.max()) / temperature, -1)
                token = int(torch.multinomial(draw, 1, generator=generator))
            else:
                token = int(logits.argmax())
            ids.append(token)
            logprobs.append(float(torch.log_softmax(logits, -1)[token]))
            if token in self.ends or (stops and any(text in self.tokenizer.decode(ids) for text in stops)):
                return Generation(ids, logprobs, True)
            tokens = torch.tensor([[token]])
        return Generation(ids, logprobs, False)


Engine = VllmEngine | TransformersEngine


def check_parallel(policy: Path, gpus: int) -> None:
    """Raise UserError if the policy can't be split over so many GPUs, or there are not so many."""
    heads = storage.read_json(policy / "config.json").get("num_attention_heads", gpus)
    if heads % gpus:
        raise UserError(
            f"tensor_parallel: {gpus} does not divide the {heads} attention heads of {policy}; "
            "take a number that does"
        )
    here = torch.cuda.device_count()
    if gpus > max(1, here):
        raise UserError(f"tensor_parallel: {gpus} GPUs are asked for and {here} are here; lower it")


def open_engine(
    policy: Path, engine: str, max_tokens: int, tokenizer: Any, stops: bool, gpus: int = 1
) -> Engine:
    """Start an engine for sequences of at most `max_tokens` tokens; `stops`: they are to end at texts.

    Raises UserError when the engine can't load the policy or split it over so many GPUs, or `max_tokens`
    exceeds the policy's context.
    """
    kind: Any = {"vllm": VllmEngine, "transformers": TransformersEngine}[engine]
    log.info("starting %s with %s", engine, policy)
    check_folder(policy)
    check_parallel(policy, gpus)
    limit = context(policy)
    if max_tokens > limit:
        raise UserError(f"rollout.max_tokens: {max_tokens} exceeds {policy}'s context, {limit}")
    try:
        with cost.phase("engine"):
            return kind(policy, max_tokens, tokenizer, stops, gpus)
    except (ImportError, AssertionError, *UNREADABLE) as error:  # vLLM asserts the shapes of weights
        reason = one_line(error, 300)
        raise UserError(f"{engine} can't start with {policy}: {reason}; try engine: transformers") from error
