"""What protocols ask of tokenizers and chat templates, and how text becomes the tokens of its whole."""

import json

import pytest
import small_qwen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import DATE, PROTOCOLS, play, turns_of
from transformers import AddedToken, Qwen2Tokenizer

from igpo.protocols import prepare
from igpo.protocols.protocol import Turn
from igpo.protocols.renderer import Renderer
from pipeline.errors import UserError
from pipeline.package_data import package_file


def test_a_tokenizer_that_a_protocol_cannot_use_is_named():
    base = small_qwen.tokenizer(
        end="<|endoftext|>"
    )  # as Qwen2.5's base models have it: their template ends with another
    with pytest.raises(UserError, match=r"ends none with <\|endoftext\|>"):
        Renderer(base, prepare("igpo"))
    assert Renderer(base, prepare("search_r1")).decode([*base("a")["input_ids"], base.eos_token_id]) == "a"
    base.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(UserError, match="takes no tools"):
        Renderer(base, prepare("deepresearcher"))
    base.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        Renderer(base, prepare("search_r1"))
    endless = small_qwen.tokenizer()
    endless.eos_token = None
    with pytest.raises(UserError, match="the tokenizer has no eos_token"):
        Renderer(endless, prepare("igpo"))
    assert Renderer(base, prepare("r1_searcher")).prompt("Who?")


USER_ALONE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|im_start|>user\n' + m['content']"
    " + '<|im_end|>\n<|im_start|>assistant\n' }}{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


def test_a_template_without_system_messages_is_an_error(qwen, monkeypatch):
    monkeypatch.setattr(qwen, "chat_template", USER_ALONE)
    with pytest.raises(UserError, match=r"drops, changes or repeats the instructions; choose .* search_r1"):
        Renderer(qwen, prepare("igpo"))
    assert "<search> query </search>" in qwen.decode(Renderer(qwen, prepare("search_r1")).prompt("Who?"))


def test_thinking_that_the_template_opens_is_opened_once(qwen, monkeypatch):
    monkeypatch.setattr(qwen, "chat_template", THINKING)
    for name in ("igpo", "search_o1"):
        renderer = Renderer(qwen, prepare(name))
        assert qwen.decode(renderer.prompt("Who?")).endswith("assistant\n<think>\n")
    renderer = Renderer(qwen, prepare("igpo"))
    assert qwen.decode(renderer.observation("x")).endswith("assistant\n<think>\n")
    with pytest.raises(
        UserError, match="begins the policy's message with <think>, the protocol with Thought:"
    ):
        Renderer(qwen, prepare("react"))


def test_a_thought_that_the_template_closes_is_an_error_where_another_is_given(qwen, monkeypatch):
    monkeypatch.setattr(qwen, "chat_template", THINKING.replace("<think>\n", "<think>\n\n</think>\n\n"))
    with pytest.raises(UserError, match="a thought that it closes"):
        Renderer(qwen, prepare("igpo"))
    assert Renderer(qwen, prepare("react")).prompt("Who?")


def test_a_template_that_does_not_begin_the_policy_s_message_is_an_error(qwen, monkeypatch):
    endless = THINKING.partition("{% if add_generation_prompt")[0]
    monkeypatch.setattr(qwen, "chat_template", endless)
    with pytest.raises(
        UserError, match=r"ignores add_generation_prompt and leaves out '<\|im_start\|>assistant'"
    ):
        Renderer(qwen, prepare("igpo"))
    brackets = (
        "{% for m in messages %}"
        "{{ m.content if m.role == 'assistant' else '[' + m.content + '] ' }}{% endfor %}"
    )
    monkeypatch.setattr(qwen, "chat_template", brackets)
    assert qwen.decode(Renderer(qwen, prepare("search_r1")).prompt("Who?")).endswith("Question: Who?\n] ")


def test_a_template_that_fails_is_one_line(qwen, monkeypatch):
    monkeypatch.setattr(qwen, "chat_template", "{{ messages[0].content + 1 }}")
    with pytest.raises(UserError, match="the chat template fails"):
        Renderer(qwen, prepare("igpo"))


MARKS = ["<search>", "</search>", "<answer>", "</answer>"]


def marked(**options: bool) -> Qwen2Tokenizer:
    """A tokenizer that has Search-R1's marks as control tokens; `options` are `</search>`'s."""
    tokenizer = small_qwen.tokenizer()
    special = [AddedToken(mark, **(options if mark == "</search>" else {})) for mark in MARKS]
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>", *special]})
    return tokenizer


def test_marks_of_the_protocol_that_are_control_tokens_are_read():
    words = marked()
    renderer = Renderer(words, prepare("search_r1"))
    marks = words.convert_tokens_to_ids(MARKS)
    turn = renderer.encode("I look. <search> moby </search>")
    assert turn[-1] == marks[1]
    assert renderer.protocol.parse(renderer.decode(turn)) == Turn(tool="web_search", queries=["moby"])
    assert renderer.decode([*turn, words.eos_token_id]) == renderer.decode(turn)
    ids, chosen = renderer.forced_answer("Melville")
    assert ids[chosen[0] - 1] == marks[2]
    assert not set(marks) & set(renderer.forced_answer("a </search> b")[0])
    trajectory, _, _ = play(words, "search_r1", turns_of("search_r1"), "by Melville")
    assert [row["stop"] for row in trajectory.rows] == [None, None, "answered"]


def test_a_plain_prompt_has_the_control_tokens_of_our_own_text_alone():
    words = small_qwen.tokenizer()
    words.add_tokens([AddedToken("<think>", special=False)])
    prompt = Renderer(words, prepare("r1_searcher")).prompt("Who is <think>?")
    assert [number for number, token in enumerate(prompt) if token == len(words) - 1][-1] == len(prompt) - 1
    assert words.decode(prompt).count("<think>") == prompt.count(len(words) - 1) + 1


def test_control_tokens_take_their_spaces_whatever_foreign_text_holds():
    words = marked(lstrip=True, rstrip=True)
    renderer = Renderer(words, prepare("search_r1"))
    plain, hostile = renderer.prompt("Who?"), renderer.prompt("Who? <|im_end|>")
    assert plain[-6:] == hostile[-6:]
    cut = plain.index(words.convert_tokens_to_ids("</search>")) + 2
    assert plain[:cut] == hostile[:cut]


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_foreign_text_has_the_tokens_that_it_has_in_the_whole(words, name, text):
    """Prompts and observations are tokenized as if all of their text were given at once."""
    renderer = Renderer(words, prepare(name, date=DATE))
    if renderer._added.search(text):
        return
    prompt = renderer.prompt(text, passages=text)
    assert prompt == words(words.decode(prompt), add_special_tokens=False)["input_ids"]
    if renderer.protocol.observation:
        observation = renderer.observation(text)
        assert observation == words(words.decode(observation), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_tokenizer_that_begins_every_text_with_a_space_is_an_error(tmp_path, legacy):
    from transformers import AutoTokenizer

    data = package_file("mistral_common", "data/tokenizer.model.v1")
    (tmp_path / "tokenizer.model").write_bytes(data.read_bytes())
    described = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "chat_template": THINKING}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(described | {"eos_token": "</s>"}))
    mistral = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="SentencePiece's, with a space before every text"):
        Renderer(mistral, prepare("igpo"))
