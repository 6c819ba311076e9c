"""A protocol's prompts and observations as token ids."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from igpo.protocols.protocol import FIELD, THINK, TOOLS, Protocol
from pipeline.errors import UserError

CLOSED = "</think>"


def any_of(tokens: Iterable[Any], spaces: bool = False) -> re.Pattern[str]:
    """A pattern of any of the added tokens' texts, longest first; with the `spaces` that each takes in."""
    longest_first = sorted(tokens, key=lambda token: len(token.content), reverse=True)
    texts = [
        r"\s*" * (spaces and token.lstrip) + re.escape(token.content) + r"\s*" * (spaces and token.rstrip)
        for token in longest_first
    ]
    return re.compile(f"({'|'.join(texts) or '(?!)'})")


class Renderer:
    """Turns a protocol's texts into token ids with a model's own tokenizer and chat template."""

    def __init__(self, tokenizer: Any, protocol: Protocol):
        """Learn from the chat template which tokens surround a prompt and a tool's answer.

        Raises UserError for a tokenizer without a chat template, one whose template drops text, and one that
        begins whatever is encoded alone with a space: turns are.
        """
        self.tokenizer, self.protocol = tokenizer, protocol
        if protocol.chat and not tokenizer.chat_template:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template")
        added_tokens = tokenizer.added_tokens_decoder
        self._added = any_of(added_tokens.values(), spaces=True)
        self._marks = any_of([token for token in added_tokens.values() if not token.special])
        # A checkpoint may hold the protocol's own marks as control tokens: these are text of a turn.
        self._control = {
            number
            for number, token in added_tokens.items()
            if token.special and not any(stop in token.content for stop in protocol.stops)
        }
        if self.encode("\na") != self.encode("\n") + self.encode("a"):
            raise UserError(
                f"{tokenizer.name_or_path}: the tokenizer (SentencePiece's, with a space before every text) "
                "gives other tokens for a turn alone than within its conversation; supported are those "
                "without it, as Llama 3's, Qwen's and SmolLM2's"
            )
        # Chat templates write the token that begins a text themselves.
        first = tokenizer("")["input_ids"][:1]
        self._begin = first if first == [tokenizer.bos_token_id] else []
        self._prompt = self._first() if protocol.chat else ""
        self._observation = protocol.observation if protocol.stops else self._later()
        self._reader = self._reading(protocol.reader) if protocol.reader else ""
        # A chat template that prints JSON, as Llama 3.1's, quotes a tool's answer.
        self._quoted = '"{observation}"' in self._observation

    def _first(self) -> str:
        """The prompt of a chat, up to where the policy begins."""
        protocol = self.protocol
        messages = [{"role": "user", "content": "{question}"}]
        if "{question}" in protocol.instructions:
            messages[0]["content"] = protocol.instructions
        else:
            messages.insert(0, {"role": "system", "content": protocol.instructions})
        prompt = self._template(messages)
        if FIELD.findall(prompt) != ["question"]:
            raise UserError(f"{self.tokenizer.name_or_path}: the chat template drops or repeats a message")
        if not all(tool["function"]["name"] in prompt for tool in protocol.signatures):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template takes no tools; choose another protocol"
            )
        if prompt.count(protocol.instructions.strip()) != 1:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template drops, changes or repeats the "
                "instructions; choose a protocol that gives them in the user's message, such as search_r1"
            )
        self._check_beginning(messages, prompt)
        return self._begun(prompt)

    def _check_beginning(self, messages: list[dict[str, str]], prompt: str) -> None:
        """Raise UserError if the template leaves it to the policy to write how its message begins."""
        if self._template(messages, begin=False) != prompt:
            return
        turn = {"role": "assistant", "content": "{turn}"}
        head, _, _ = self._template([*messages, turn], begin=False).partition("{turn}")
        if head.startswith(prompt) and (beginning := head.removeprefix(prompt).strip()):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template ignores add_generation_prompt and leaves "
                f"out {beginning!r}: let it end a prompt so"
            )

    def _later(self) -> str:
        """What stands between two turns of a policy. It samples the end-of-turn token itself."""
        tool = {"role": "tool", "name": TOOLS[0]} if self.protocol.signatures else {"role": "user"}
        messages = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "{turn}"},
            {**tool, "content": self.protocol.observation},
        ]
        turn, _, later = self._template(messages).partition("{turn}")
        end = self.tokenizer.eos_token
        if end is None:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the tokenizer has no eos_token, with which turns end"
            )
        _, separator, between = later.partition(end)
        if not separator or FIELD.findall(turn + between) != ["observation"]:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template drops or repeats a message, or ends none "
                f"with {end}"
            )
        return self._begun(between)

    def _reading(self, reader: str) -> str:
        """The prompt to condense found documents, with its fields."""
        prompt = self._template([{"role": "user", "content": reader}])
        if FIELD.findall(prompt) != FIELD.findall(reader):
            raise UserError(f"{self.tokenizer.name_or_path}: the chat template drops or repeats a message")
        return prompt

    def _begun(self, text: str) -> str:
        """The text up to where the policy goes on; a chat template may have opened its thinking already."""
        is_open, opening = text.rstrip().endswith(THINK), self.protocol.opening
        if text.rstrip().endswith(CLOSED) and opening.startswith(THINK):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template begins the policy's message with a "
                f"thought that it closes, the protocol opens another; let the template leave out {CLOSED}"
            )
        if is_open and opening and not opening.startswith(THINK):
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template begins the policy's message with {THINK}, "
                f"the protocol with {opening}; choose another protocol, such as igpo"
            )
        return text + (opening.removeprefix(THINK) if is_open else opening)

    def _template(self, messages: list[dict[str, str]], begin: bool = True) -> str:
        from jinja2 import TemplateError

        tools = list(self.protocol.signatures) or None
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                tools=tools,
                tokenize=False,
                add_generation_prompt=begin,
                strftime_now=datetime.fromisoformat(self.protocol.date).strftime,
            )
        except (TemplateError, TypeError, ValueError, LookupError) as error:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the chat template fails: {error}; choose another protocol"
            ) from None

    def _is_our_own(self, whole: str, own: Iterable[str]) -> bool:
        """Whether the control tokens of a whole text are those that our own pieces of it hold."""
        return len(self._added.findall(whole)) == sum(len(self._added.findall(piece)) for piece in own)

    def _fill(self, text: str, **fields: str) -> list[int]:
        """Token ids of our own text with foreign text in its fields: those that the whole text has.

        Control tokens count in our own text only.
        """
        pieces = FIELD.split(text)
        own = pieces[::2]
        parts = [fields[piece] if number % 2 else piece for number, piece in enumerate(pieces)]
        whole = "".join(parts)
        if self._is_our_own(whole, own):
            return self.encode(whole)
        ids, between = list[int](), ""
        for number, piece in enumerate(parts):
            *before, after = [piece] if number % 2 else self._added.split(piece)
            for plain, control in zip(before[::2], before[1::2], strict=True):
                ids += [*self.encode_plain(between + plain), *self.encode(control)]
                between = ""
            between += after
        return ids + self.encode_plain(between)

    def encode(self, text: str) -> list[int]:
        """Token ids of our own text, control tokens included."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of foreign text: `<|im_end|>` in a passage stays plain characters.

        So does what a tokenizer holds as one token without calling it special, as Qwen's `<tool_call>`.
        """
        inside = [match.start() + 1 for match in self._marks.finditer(text)]
        parts = [text[low:high] for low, high in itertools.pairwise([0, *inside, len(text)])]
        id_lists = self.tokenizer(parts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [token for ids in id_lists for token in ids]

    def prompt(self, question: str, passages: str = "") -> list[int]:
        """Turn 0: instructions, question and, if the protocol searches first, what was found."""
        if self.protocol.chat:
            return self._fill(self._prompt, question=question)
        fields = {"question": question, "passages": f"{passages}\n" if passages else ""}
        return [*self._begin, *self._fill(self.protocol.instructions, **fields)]

    def observation(self, text: str) -> list[int]:
        """What follows a sampled call: the tool's answer, up to where the policy goes on."""
        content = json.dumps(text, ensure_ascii=False)[1:-1] if self._quoted else text
        return self._fill(self._observation, observation=content)

    def reading(self, reasoning: str, query: str, documents: str) -> list[int]:
        """The prompt to condense found documents, of a protocol with a `reader`."""
        return self._fill(self._reader, reasoning=reasoning, query=query, documents=documents)

    def turn(self, text: str) -> list[int]:
        """A whole turn as a policy would sample it, end-of-turn token included."""
        return [*self.encode(text), self.tokenizer.eos_token_id]

    def unended(self, ids: list[int], stopped: bool = True) -> list[int]:
        """Sampled tokens; if the policy `stopped`, without the control token that ends them."""
        return ids[:-1] if stopped and ids and ids[-1] in self._control else ids

    def decode(self, ids: list[int], stopped: bool = True) -> str:
        """Text of sampled tokens; if the policy `stopped`, without the control token that ends it."""
        return self.tokenizer.decode(self.unended(ids, stopped), skip_special_tokens=False)

    def forced_answer(self, gold: str) -> tuple[list[int], list[int]]:
        """Token ids of the scaffold around `gold`, and the indices of the tokens that overlap it.

        To be put after a prompt or an observation (paper Eq. 3). Raises ValueError for an empty gold
        answer.
        """
        if not gold.strip():
            raise ValueError("an empty gold answer can't be scored")
        before, _, after = self.protocol.scaffold.partition("{gold}")
        start, end = len(before), len(before) + len(gold)
        whole = before + gold + after
        encoding = self.tokenizer(
            whole,
            add_special_tokens=False,
            split_special_tokens=not self._is_our_own(whole, (before, after)),
            return_offsets_mapping=True,
        )
        spans = encoding["offset_mapping"]
        gold_indices = [i for i, (low, high) in enumerate(spans) if low < end and high > start]
        return encoding["input_ids"][: gold_indices[-1] + 1], gold_indices
