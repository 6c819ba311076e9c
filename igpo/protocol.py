"""The trajectory protocol: what a policy reads, what it may write, and how its text is parsed.

A turn is `<think>…</think>` followed by a search,

    <tool_call>
    {"name": "web_search", "arguments": {"query": ["…"]}}
    </tool_call>

or, where that tool is on, by a call of `open` with `{"title": "…"}`, which reads on in a page that was
found, or by `<answer>…</answer>`. `<think>` itself is given, not sampled. Only text that the policy sampled
is parsed; passages are encoded so that no token of theirs can be a control token.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retrieval.stage import UserError

MAX_QUERIES = 3  # of one call; the others are ignored, as in IGPO and DeepResearcher
TOOLS = ("web_search", "open")
TAGS = ("think", "tool_call", "answer")
SYSTEM = """\
Answer the question with the help of a search engine. First write what to look up next between <think> \
and </think>. Then either search:
<tool_call>
{"name": "web_search", "arguments": {"query": ["words to look up"]}}
</tool_call>
or, once you know it, answer with the final words only:
<answer>
final words
</answer>"""
OPEN = """\
or read on in a page that was found:
<tool_call>
{"name": "open", "arguments": {"title": "page title"}}
</tool_call>
"""
SCAFFOLD = ("\nNow there's enough information to answer\n</think>\n<answer>\n", "\n</answer>")
_HOLE = "\u241f"  # stands for free text while a chat template is rendered


@dataclass(frozen=True)
class Turn:
    """A parsed turn: `answer` where it answers, else `tool` and `queries` where it calls, else an error.

    For `open` the one query is the page's title.
    """

    answer: str | None = None
    tool: str | None = None
    queries: list[str] = field(default_factory=list)
    error: str | None = None


def parse(text: str) -> Turn:
    """Parse what the policy wrote after the given `<think>`, without the end-of-turn token.

    An answer wins over a call in the same turn; of several calls the first counts.
    """
    for tag in TAGS:
        given = tag == "think"
        if text.count(f"<{tag}>") + given != text.count(f"</{tag}>"):
            return Turn(error=f"unbalanced <{tag}>")
    body = text.partition("</think>")[2]
    if "<answer>" in body:
        return Turn(answer=_inside(body, "answer"))
    if "<tool_call>" in body:
        return _call(_inside(body, "tool_call"))
    return Turn(error="neither <answer> nor <tool_call> after </think>")


def _inside(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0].strip()


def _call(text: str) -> Turn:
    try:
        call = json.loads(text)
    except ValueError:
        return Turn(error="<tool_call> is not JSON")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return Turn(error="<tool_call> has no name")
    if not isinstance(call.get("arguments"), dict):
        return Turn(error="<tool_call> has no arguments")
    arguments = call["arguments"]
    queries = [arguments.get("title")] if call["name"] == "open" else arguments.get("query")
    valid = isinstance(queries, list) and all(isinstance(query, str) for query in queries)
    return Turn(tool=call["name"], queries=queries[:MAX_QUERIES] if valid else [])


def system(tools: Sequence[str]) -> str:
    """The system prompt for an agent with `tools`."""
    search, once, answer = SYSTEM.partition("or, once")
    return search + (OPEN if "open" in tools else "") + once + answer


def call_text(queries: Sequence[str]) -> str:
    """A search call as the policy is taught to write it."""
    call = {"name": "web_search", "arguments": {"query": list(queries)}}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def passage_text(title: str, text: str, chars: int | None) -> str:
    """A passage as a policy reads it: title and text on one line, at most `chars` characters."""
    return " ".join(f"{title}: {text}".split())[:chars]


def observation_text(turn: Turn, hits: Sequence[Sequence[str]], tools: Sequence[str] = TOOLS[:1]) -> str:
    """The tool's answer to a call; `hits` holds the passages of each query or of the opened page."""
    if turn.tool is None or turn.tool not in tools:
        return f"Unknown tool: {turn.tool}"
    if not turn.queries:
        needs = {"web_search": '"query", a list of strings', "open": '"title", a string'}
        return f"{turn.tool} needs {needs[turn.tool]}"
    nothing = f"No further passages of {turn.queries[0]}" if turn.tool == "open" else "No results"
    return "\n".join(passage for passages in hits for passage in passages) or nothing


class Renderer:
    """Turns prompts and observations into token ids with a model's own tokenizer and chat template."""

    def __init__(self, tokenizer: Any, tools: Sequence[str] = TOOLS[:1]):
        """Learn from the chat template which tokens surround a prompt and a tool's answer.

        The system prompt describes `tools`.

        Raises UserError for a tokenizer without a chat template or whose template drops text.
        """
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no chat template")
        first = [{"role": "system", "content": system(tools)}, {"role": "user", "content": _HOLE}]
        wrapped = f"<tool_response>\n{_HOLE}\n</tool_response>"
        later = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": _HOLE},
            {"role": "user", "content": wrapped},
        ]
        prompt, turns = self._template(first).split(_HOLE), self._template(later).split(_HOLE)
        if len(prompt) != 2 or len(turns) != 3 or tokenizer.eos_token not in turns[1]:
            raise UserError(f"{tokenizer.name_or_path}: the chat template drops or repeats a message")
        self._prompt = (prompt[0], prompt[1] + "<think>")
        # The policy samples the end-of-turn token itself; what the template puts after it is ours.
        self._observation = (turns[1].split(tokenizer.eos_token, 1)[1], turns[2] + "<think>")

    def _template(self, messages: list[dict[str, str]]) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _frame(self, frame: tuple[str, str], text: str) -> list[int]:
        return [*self.encode(frame[0]), *self.encode_plain(text), *self.encode(frame[1])]

    def encode(self, text: str) -> list[int]:
        """Token ids of our own text, control tokens included."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of foreign text: `<|im_end|>` in a passage stays plain characters."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def prompt(self, question: str) -> list[int]:
        """Turn 0: system prompt, question, generation prompt and the given `<think>`."""
        return self._frame(self._prompt, question)

    def observation(self, text: str) -> list[int]:
        """What follows a sampled search turn: the tool's answer up to the next given `<think>`."""
        return self._frame(self._observation, text)

    def turn(self, text: str) -> list[int]:
        """A whole turn as a policy would sample it, end-of-turn token included."""
        return [*self.encode(text), self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled tokens without the end-of-turn token at their end."""
        end = len(ids) - 1 if ids and ids[-1] == self.tokenizer.eos_token_id else len(ids)
        return self.tokenizer.decode(ids[:end], skip_special_tokens=False)

    def forced_answer(self, gold: str) -> tuple[list[int], list[int]]:
        """Token ids of the scaffold around `gold`, and the indices of the tokens that overlap it.

        The text is `…</think>\\n<answer>\\nGOLD\\n</answer>`, to be put after a given `<think>`
        (algorithms.md 1.2). Raises ValueError for an empty gold answer.
        """
        if not gold.strip():
            raise ValueError("an empty gold answer can't be scored")
        start, end = len(SCAFFOLD[0]), len(SCAFFOLD[0]) + len(gold)
        encoded = self.tokenizer(
            SCAFFOLD[0] + gold + SCAFFOLD[1],
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        spans = encoded["offset_mapping"]
        chosen = [i for i, (low, high) in enumerate(spans) if low < end and high > start]
        return encoded["input_ids"][: chosen[-1] + 1], chosen


EXAMPLES = (  # facts outside the test questions: the closed-book prompt shows the form, not the answers
    ("When was the Eiffel Tower completed?", "1889"),
    ("Who wrote Don Quixote?", "Miguel de Cervantes"),
    ("In which year did Julius Caesar die?", "44 BC"),
    ("Which element has the symbol Fe?", "Iron"),
    ("What is the capital of Portugal?", "Lisbon"),
    ("In which year was Marie Curie born?", "1867"),
)


def few_shot(question: str, passages: Sequence[str] = ()) -> str:
    """Prompt of the baselines without search: six examples, then passages (if any) and the question."""
    shots = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in EXAMPLES)
    context = "".join(f"{passage}\n" for passage in passages)
    return f"{shots}{context}Question: {question}\nAnswer:"
