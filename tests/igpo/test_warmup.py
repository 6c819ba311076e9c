"""Traces by rule, from passages written here."""

import json
import re
from types import SimpleNamespace

import pytest
from small_index import indexes, refusal, section_of
from small_qwen import tokenizer
from tiny import tiny

from igpo import warmup
from igpo.experiment import schema
from igpo.experiment.policy import load_tokenizer
from igpo.protocols import prepare
from igpo.protocols.igpo import parse
from igpo.protocols.renderer import Renderer
from igpo.warmup import Hop, head, hop_of, learning_rate, quote, trace
from pipeline import storage

MELVILLE = "Herman Melville: American writer (1819–1891). Herman Melville was an American novelist. His"
NOVEL = "Moby-Dick: 1851 novel by Herman Melville. Moby-Dick is an epic novel; it is long"


@pytest.fixture(scope="module")
def renderer(base_model):
    return Renderer(load_tokenizer(base_model), prepare("igpo"))


@pytest.mark.parametrize(
    ("passage", "fact", "expected"),
    [
        (MELVILLE, "1891", "American writer (1819–1891)"),
        (MELVILLE, "novelist", "Herman Melville was an American novelist"),
        (NOVEL, "Herman Melville", "1851 novel by Herman Melville"),
        (NOVEL, "1999", None),
        ("Whale: " + "a long way to go " * 8 + "until 1820 ends. Then", "1820", None),
    ],
)
def test_quote_is_the_clause_around_the_fact(passage, fact, expected):
    clause = quote(passage, fact)
    if expected is None and fact in passage:
        assert clause is not None
        assert clause.endswith("until 1820 ends")
        assert len(clause) <= 60 + len("1820 ends")
    else:
        assert clause == expected


def test_head_is_the_short_description():
    assert head(MELVILLE) == "American writer (1819–1891)"


def titled(title: str, *hits: tuple[str, str]) -> Hop:
    """A hop whose search asks for the passage's title."""
    return Hop(title, title, title, list(hits))


def question(text: str, answer: str, supporting: list[str]) -> dict:
    return {"question_id": "q", "question": text, "answers": [answer], "supporting_ids": supporting}


def test_a_bridge_searches_twice_and_every_turn_parses(renderer):
    task = question("In which year did the author of the novel Moby-Dick die?", "1891", ["2", "1"])
    hops = [titled("Moby-Dick", ("2", NOVEL)), titled("Herman Melville", ("1", MELVILLE), ("2", NOVEL))]
    trajectory = trace(task, hops, renderer)
    assert trajectory is not None
    turns = [parse(row["text"].lstrip()) for row in trajectory.rows[1:]]
    assert [turn.queries for turn in turns] == [["Moby-Dick"], ["Herman Melville"], []]
    assert turns[-1].answer == "1891"
    assert trajectory.rows[-1]["stop"] == "answered"
    assert "1851 novel by Herman Melville. I need to look up Herman Melville." in trajectory.rows[2]["text"]
    assert trajectory.context == [
        t for row in trajectory.rows for t in row["policy_ids"] + row["observation_ids"]
    ]


def test_a_search_that_misses_gives_no_trace(renderer):
    task = question("In which year did Herman Melville die?", "1891", ["1"])
    assert trace(task, [titled("Herman Melville", ("2", NOVEL))], renderer) is None


def test_an_answer_that_was_not_shown_gives_no_trace(renderer):
    task = question("Where was Herman Melville born?", "New York", ["1"])
    assert trace(task, [titled("Herman Melville", ("1", MELVILLE))], renderer) is None


KURASHIKI = "Kurashiki: City in Japan. Kurashiki is a historic city; it lies in the west."
TOKYO = "Tokyo: Capital and largest city of Japan. Tokyo is the capital of Japan. It"


class Corpus:
    """An index that only knows its passages."""

    def __init__(self, **passages: str):
        self.passages = {name: passage.split(": ", 1) for name, passage in passages.items()}

    def get(self, name: str):
        title, text = self.passages[name]
        return SimpleNamespace(title=title, text=text)


def test_a_capital_that_is_the_answer_is_searched_for_by_its_country(renderer):
    task = question("What is the capital of the country in which Kurashiki is located?", "Tokyo", ["k", "t"])
    corpus = Corpus(k=KURASHIKI, t=TOKYO)
    place, seat = (hop_of(corpus, task, name) for name in task["supporting_ids"])
    assert (seat.query, seat.clue) == ("the capital of Japan", "Japan")
    trajectory = trace(
        task, [place._replace(hits=[("k", KURASHIKI)]), seat._replace(hits=[("t", TOKYO)])], renderer
    )
    assert trajectory is not None
    turns = [parse(row["text"].lstrip()) for row in trajectory.rows[1:]]
    assert [turn.queries for turn in turns] == [["Kurashiki"], ["the capital of Japan"], []]
    assert turns[-1].answer == "Tokyo"


def test_a_country_that_no_passage_has_named_gives_no_trace(renderer):
    task = question("What is the capital of the country in which Kurashiki is located?", "Tokyo", ["k", "t"])
    silent = "Kurashiki: Historic city. Kurashiki lies in the west."
    corpus = Corpus(k=silent, t=TOKYO)
    place, seat = (hop_of(corpus, task, name) for name in task["supporting_ids"])
    hops = [place._replace(hits=[("k", silent)]), seat._replace(hits=[("t", TOKYO)])]
    assert trace(task, hops, renderer) is None


def test_questions_come_in_turns_of_their_types():
    rows = [{"question_id": name, "type": name[0]} for name in ("a1", "a2", "a3", "b1", "c1", "c2")]
    assert [row["question_id"] for row in schema.in_turns(rows)] == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_learning_rate_rises_and_falls_to_a_fifth():
    rates = [learning_rate(step, 20, 1.0) for step in range(20)]
    assert rates[0] == pytest.approx(0.5)
    assert max(rates) == rates[1]
    assert rates[-1] == pytest.approx(0.2)


def stage_words(folder, policy, index, corpus_sha256: str) -> list:
    """The stage's command line over one question of the small corpus, said to be made from another or not."""
    row = question("In which year did Herman Melville die?", "1891", ["melville"])
    row |= {"benchmark": "vitalqa", "split": "train", "hops": 1, "type": "t"}
    meta = {"corpus_sha256": corpus_sha256}
    storage.write([row], schema.QUESTIONS, folder / "q.parquet", schema.QUESTIONS_KEY, meta)
    words = ["--policy", policy, "--questions", folder / "q.parquet", "--index", index]
    return [*words, "--config", json.dumps(section_of("warmup", traces=1)), "--out", folder / "out"]


def test_questions_of_another_corpus_are_refused(base_model, tmp_path, tmp_path_factory, capsys):
    _, index, _ = indexes(tmp_path_factory)
    words = stage_words(tmp_path, base_model, index, "of another")
    assert "made from corpus of another" in refusal(capsys, warmup.main, *words)


def test_a_trace_beyond_the_context_is_one_line_that_names_its_question(tmp_path, tmp_path_factory, capsys):
    corpus, index, _ = indexes(tmp_path_factory)
    policy = tiny("qwen2", len(tokenizer()))
    policy.config.max_position_embeddings = 128
    policy.save_pretrained(tmp_path / "policy")
    tokenizer().save_pretrained(tmp_path / "policy")
    words = stage_words(tmp_path, tmp_path / "policy", index, storage.footer(corpus, "corpus_sha256"))
    message = refusal(capsys, warmup.main, *words)
    assert re.search(
        r"question 'q': its trace of \d+ tokens exceeds the context of 128 tokens of .*: lower", message
    )
    assert "warmup.k or warmup.passage_chars" in message
    assert not (tmp_path / "out").exists()
