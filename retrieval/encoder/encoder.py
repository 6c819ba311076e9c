"""A sentence-transformers style folder -> unit vectors of texts, read with transformers.

Pooling, normalisation, prompts, length and lower-casing come from the folder's own files. Passages go in
batches of similar length, in bf16 if the processor has it. On a CPU the batches are small, to stay in the
cache, and each runs in a single-threaded worker: the number of cores does not show in the vectors. Queries go
in batches of one size and one width: every pass that a query can stand in has the same shape, and so its
vector depends on nothing else that is asked. By hand: sentence-transformers does neither and takes 2.6 times
as long (docs/results/retrieval_speed.md).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.devices import compute_dtype
from pipeline.errors import UserError
from retrieval.encoder.folder import UNREADABLE, encoder_folder, layout, text_settings

CPU_BATCH = 8  # measured: batches of 64 take 1.4 times as much processor time
QUERY_BATCH = 8  # queries in a full batch
QUERY_STEP = 8  # tokens; a batch is a multiple of it wide


@contextmanager
def one_core_each() -> Iterator[None]:
    """Let each worker thread compute on one core: MKL counts threads for the whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rounded(count: int, step: int) -> int:
    """`count` rounded up to a multiple of `step`."""
    return -(-count // step) * step


def by_length(tokens: list[list[int]]) -> list[int]:
    """Indices of texts, the shortest first."""
    return sorted(range(len(tokens)), key=lambda number: len(tokens[number]))


def alike(widths: Sequence[int]) -> list[list[int]]:
    """Indices of equal widths together, at most `QUERY_BATCH` in a part; the widest first."""
    order = sorted(range(len(widths)), key=widths.__getitem__, reverse=True)
    groups = (list(group) for _, group in itertools.groupby(order, widths.__getitem__))
    return [group[low : low + QUERY_BATCH] for group in groups for low in range(0, len(group), QUERY_BATCH)]


def read_model(folder: Path, dtype: torch.dtype) -> Any:
    """The encoder model of a folder, as transformers reads it.

    Raises one of UNREADABLE; ValueError for a missing weight, which would be random. A pooler may be missing:
    vectors are made of the states of tokens.
    """
    from transformers import AutoModel

    model, info = AutoModel.from_pretrained(
        folder, dtype=dtype, local_files_only=True, output_loading_info=True
    )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"{missing[0]} is not among its weights")
    return model


class Encoder:
    """An encoder folder, loaded."""

    def __init__(
        self,
        folder: Path,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        prefixes: tuple[str | None, str | None] = (None, None),
    ):
        """Load the folder.

        `prefixes` go before queries and passages; None: the prompts that the folder names, if any.
        Raises UserError for a folder that can't be read, or whose model gives no vectors.
        """
        from transformers import AutoTokenizer
        from transformers.utils import logging

        from retrieval.encoder import masked, prepacked

        logging.disable_progress_bar()
        try:
            self.pooling, self.normalise = layout(folder)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder}: modules.json or the pooling's file: unexpected {error!r}") from None
        limit, self.lower, prompts = text_settings(folder)
        self.prefixes = [
            (prompt if prefix is None else prefix) or ""
            for prefix, prompt in zip(prefixes, prompts, strict=True)
        ]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.model = read_model(folder, dtype)
        except UNREADABLE as error:
            raise UserError(f"{folder}: not a readable encoder: {error}") from None
        self.model.eval().requires_grad_(False).to(self.device)
        if self.model.config._attn_implementation == "sdpa":
            self.model.set_attn_implementation(masked.ATTENTION)
        if dtype is torch.bfloat16 and self.device.type == "cpu" and compute_dtype() is dtype:
            prepacked.replace_linear(self.model)
        self.dimension = int(self.model.config.hidden_size)
        longest = getattr(self.model.config, "max_position_embeddings", max_tokens)
        # a tokenizer without a limit has a huge one; RoBERTa's is two below its positions, which begin at 2
        self.max_tokens = min(max_tokens, limit or max_tokens, longest, self.tokenizer.model_max_length)
        self.workers = 1 if self.device.type == "cuda" else torch.get_num_threads()
        self.pool = ThreadPoolExecutor(self.workers, "encoder", torch.set_num_threads, (1,))
        self._check(folder)

    def _check(self, folder: Path) -> None:
        """Raise UserError if the model has no vector for a text, or none of finite numbers."""
        try:
            vectors = self.vectors(self.tokens(["text"]))
        except (AttributeError, TypeError, ValueError) as error:
            kind = self.model.config.model_type
            raise UserError(f"{folder}: a model of type {kind} gives no states of tokens: {error}") from None
        if not np.isfinite(vectors).all():
            raise UserError(f"{folder}: the encoder's vectors hold NaN or infinity")

    def tokens(self, texts: Sequence[str], prefix: str = "") -> list[list[int]]:
        """Token ids of each text, cut to `max_tokens`."""
        inputs = [prefix + (text.lower() if self.lower else text) for text in texts]
        return self.tokenizer(inputs, truncation=True, max_length=self.max_tokens)["input_ids"]

    @torch.inference_mode()
    def vectors(self, tokens: list[list[int]], step: int = 1) -> np.ndarray:
        """One forward pass, a multiple of `step` tokens wide: token ids of B texts -> (B, dimension) fp32."""
        longest = min(rounded(max(map(len, tokens)), step), self.max_tokens)
        padding = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in tokens])
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in tokens])
        ids, mask = ids.to(self.device), mask.to(self.device)
        return self._pooled(self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    def _width(self, row: list[int]) -> int:
        """Tokens per row of the full batch in which a query with these tokens stands."""
        return min(rounded(len(row), QUERY_STEP), self.max_tokens)

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
        """States (B, L, dimension) under a mask (B, L) -> (B, dimension) fp32."""
        states = states.float()
        if self.pooling == "cls":
            vectors = states[:, 0]
        elif self.pooling == "max":
            vectors = states.masked_fill(~mask[..., None], -torch.inf).amax(1)
        else:
            vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        if self.normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu().numpy()

    def passages(self, texts: Sequence[str], batch: int, tick: Callable[[int], None]) -> np.ndarray:
        """Texts -> (len(texts), dimension) fp32, `batch` per pass on a GPU; `tick` hears what is done."""
        tokens = self.tokens(texts, self.prefixes[1])
        order = by_length(tokens)
        size = batch if self.device.type == "cuda" else CPU_BATCH
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return self._in_parts(self.vectors, tokens, parts, tick)

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Queries -> (len(texts), dimension) fp32, whatever is asked together."""
        tokens = self.tokens(texts, self.prefixes[0])  # here: tokenizers are not thread-safe
        return self._in_parts(self._filled, tokens, alike(list(map(self._width, tokens))), lambda _: None)

    def _in_parts(
        self,
        encode: Callable[[list[list[int]]], np.ndarray],
        tokens: list[list[int]],
        parts: list[list[int]],
        tick: Callable[[int], None],
    ) -> np.ndarray:
        """Vectors of all texts, a part of them at a time in each worker."""
        inputs = ([tokens[number] for number in part] for part in parts)
        result = np.empty((len(tokens), self.dimension), np.float32)
        with one_core_each():
            for part, vectors in zip(parts, self.pool.map(encode, inputs), strict=True):
                result[part] = vectors
                tick(len(part))
        return result

    def _filled(self, batch: list[list[int]]) -> np.ndarray:
        """Vectors of equally wide queries from a batch that is filled up with themselves."""
        return self.vectors((batch * QUERY_BATCH)[:QUERY_BATCH], QUERY_STEP)[: len(batch)]


def open_encoder(settings: dict[str, Any]) -> Encoder:
    """The encoder of a dense index's settings."""
    prefixes = (settings["query_prefix"], settings["passage_prefix"])
    return Encoder(encoder_folder(settings["encoder"]), settings["max_tokens"], compute_dtype(), prefixes)
