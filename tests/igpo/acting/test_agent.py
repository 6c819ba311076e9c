"""The loop of turns: tools, what a policy is shown, control retrievers."""

import itertools
import sys
from types import SimpleNamespace

import pytest
from small_index import paged_index, section_of

from igpo.acting import stream
from igpo.acting.agent import Agent, Trajectory
from igpo.acting.engine import Generation
from igpo.experiment.policy import load_tokenizer
from igpo.protocols import prepare
from igpo.protocols.igpo import call_text
from igpo.protocols.protocol import TOOLS
from igpo.protocols.renderer import Renderer
from igpo.protocols.search_r1 import INVALID
from retrieval.indexes import modes
from retrieval.indexes.searcher import open_searcher
from retrieval.server.exchange import Refused


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    return open_searcher([paged_index(tmp_path_factory)])


PLAY = Agent.run


@pytest.fixture(autouse=True, params=[Agent.run, stream.run], ids=["turn by turn", "as they come"])
def playing(request, monkeypatch):
    """Every test in both orders."""
    monkeypatch.setattr(sys.modules[__name__], "PLAY", request.param)


class Scripted:
    """An engine that says what it is told to, turn by turn; a list has a text for each trajectory."""

    def __init__(self, renderer, texts):
        self.renderer, self.texts, self.waiting = renderer, iter(texts), []

    def submit(self, number, request, max_new, temperature, stops):
        self.waiting.append((number, request))

    def step(self):
        queue, self.waiting = self.waiting, []
        generations = self.generate([request for _, request in queue], 0, 0)
        return [(number, one) for (number, _), one in zip(queue, generations, strict=True)]

    def generate(self, requests, max_new, temperature, stops=()):
        text = next(self.texts)
        turns = map(self.renderer.turn, [text] * len(requests) if isinstance(text, str) else text)
        return [Generation(ids, [0.0] * len(ids), True) for ids in turns]


class Strict:
    """A server that takes at most two queries of ten characters at once."""

    def __init__(self, searcher):
        self.searcher = searcher

    def search(self, queries, k):
        if len(queries) > 2 or any(len(query) > 10 for query in queries):
            raise Refused("http://127.0.0.1:1", "HTTP 413: too long")
        return self.searcher.search(queries, k)


def played(searcher, renderer, texts, samples=1, **over) -> list[Trajectory]:
    trajectories = [
        Trajectory({"question_id": "q", "question": "What?"}, sample) for sample in range(samples)
    ]
    params = SimpleNamespace(**section_of("rollout", turn_tokens=96, **over))
    PLAY(Agent(Scripted(renderer, texts), searcher, renderer, params, (0, 1)), trajectories)
    return trajectories


def stops(trajectory: Trajectory) -> list[str | None]:
    return [row["stop"] for row in trajectory.rows]


def test_an_agent_reads_on_in_a_page_that_it_found(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("igpo", TOOLS))
    call = '</think>\n<tool_call>\n{"name": "open", "arguments": {"title": "Ark"}}\n</tool_call>'
    texts = [call, "</think>\n" + call_text(["zero flood"]), call, call, "</think><answer>x</answer>"]
    params = SimpleNamespace(**section_of("rollout", tools=TOOLS, max_turns=5, max_tokens=4000))
    trajectory = Trajectory({"question_id": "q", "question": "What?"}, 0)
    PLAY(Agent(Scripted(renderer, texts), paged, renderer, params, (0, 1)), [trajectory])
    assert [row["hit_ids"] for row in trajectory.rows[1:]] == [[], ["a0"], ["a1"], ["a2"], []]
    assert list(map(len, trajectory.clock)) == [3, 3, 3, 3, 2]
    times = list(itertools.chain.from_iterable(trajectory.clock))
    assert times == sorted(times)
    assert trajectory.rows[1]["observation"] == "No further passages of Ark"
    assert trajectory.rows[3]["observation"] == "Ark: one dove"
    assert (trajectory.rows[3]["tool"], trajectory.rows[3]["queries"]) == ("open", ["Ark"])
    assert trajectory.rows[5]["stop"] == "answered"


def test_an_oracle_is_asked_the_questions_id_whatever_the_query_is(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("igpo"))
    oracle = modes.Oracle(paged, {"q": ["b", "a1"]})
    params = SimpleNamespace(**section_of("rollout", k=2))
    trajectory = Trajectory({"question_id": "q", "question": "What?"}, 0)
    texts = ["</think>\n" + call_text(["zero flood", "dove"]), "</think><answer>x</answer>"]
    PLAY(Agent(Scripted(renderer, texts), oracle, renderer, params, (0, 1)), [trajectory])
    assert trajectory.rows[1]["queries"] == ["zero flood", "dove"]
    assert trajectory.rows[1]["hit_ids"] == ["b", "a1", "b", "a1"]
    (trajectory,) = played(oracle, Renderer(load_tokenizer(base_model), prepare("rag")), ["x"], k=2)
    assert (trajectory.rows[0]["queries"], trajectory.rows[0]["hit_ids"]) == (["What?"], ["b", "a1"])


@pytest.mark.parametrize("spare", [0, -1])
def test_a_call_that_leaves_no_room_for_another_turn_is_the_last(paged, base_model, spare):
    """Disagreement 18: like the call in the last turn, it ends the trajectory and isn't read."""
    renderer = Renderer(load_tokenizer(base_model), prepare("igpo"))
    call, answer = "</think>\n" + call_text(["dove"]), "</think><answer>x</answer>"
    ids = [renderer.prompt("What?"), renderer.turn(call), renderer.observation("Ark: one dove")]
    room = sum(map(len, ids)) + 96 + spare
    (trajectory,) = played(paged, renderer, [call, answer], max_tokens=room)
    assert stops(trajectory) == ([None, None, "answered"] if spare == 0 else [None, "token_limit"])
    assert trajectory.rows[1]["observation_ids"] == ([] if spare else ids[2])
    assert (trajectory.rows[1]["hit_ids"], trajectory.rows[1]["observation"]) == (["a1"], "Ark: one dove")
    assert len(trajectory.context) <= room


def test_an_empty_turn_follows_a_prompt_that_leaves_no_room(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("igpo"))
    (trajectory,) = played(paged, renderer, [], max_tokens=len(renderer.prompt("What?")) + 95)
    assert stops(trajectory) == [None, "token_limit"]
    assert (trajectory.rows[1]["policy_ids"], trajectory.rows[1]["answer"]) == ([], None)


@pytest.mark.parametrize("spare", [0, -1])
def test_a_malformed_turn_without_room_for_its_message_is_the_last(paged, base_model, spare):
    renderer = Renderer(load_tokenizer(base_model), prepare("search_r1"))
    ids = [renderer.prompt("What?"), renderer.encode("It is he."), renderer.encode(INVALID)]
    room = sum(map(len, ids)) + 96 + spare
    (trajectory,) = played(paged, renderer, ["It is he.", "<answer>x</answer>"], max_tokens=room)
    assert stops(trajectory) == ([None, None, "answered"] if spare == 0 else [None, "format_error"])
    assert trajectory.rows[1]["policy_ids"] == (renderer.turn("It is he.") if spare else ids[1])


def test_the_end_is_cut_off_malformed_turns_alone(paged, base_model, monkeypatch):
    renderer = Renderer(load_tokenizer(base_model), prepare("search_r1"))
    monkeypatch.setattr(renderer, "decode", lambda ids, stopped: renderer.tokenizer.decode(ids[:-1]))
    cut, unended = [], renderer.unended
    monkeypatch.setattr(renderer, "unended", lambda *args: cut.append(args) or unended(*args))
    texts = ["It is he.", "<search> dove </search>", "<answer>x</answer>"]
    (trajectory,) = played(paged, renderer, texts, max_tokens=4000)
    assert stops(trajectory) == [None, None, None, "answered"]
    assert cut == [(renderer.turn("It is he."), True)]


def test_a_reading_too_long_to_go_on_with_ends_its_trajectory(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("search_o1"))
    call, reading = "<|begin_search_query|>dove<|end_search_query|>", " ".join(["dove"] * 1000)
    (trajectory,) = played(paged, renderer, [call, reading], max_tokens=1000)
    assert stops(trajectory) == [None, "token_limit"]
    assert (trajectory.rows[1]["observation"], trajectory.rows[1]["observation_ids"]) == (reading, [])


def test_a_query_that_the_server_refuses_ends_its_own_trajectory(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("igpo"))
    searches = [["dove"], ["olive", "a" * 11], ["flood"], ["olive"]]
    calls = ["</think>\n" + call_text(queries) for queries in searches]
    trajectories = played(
        Strict(paged), renderer, [calls, "</think><answer>x</answer>"], samples=4, max_tokens=4000
    )
    refused = [None, "error: HTTP 413: too long"]
    assert [stops(one) for one in trajectories] == [
        refused if number == 1 else [None, None, "answered"] for number in range(4)
    ]
    assert trajectories[1].rows[1]["queries"] == searches[1]
    assert (trajectories[1].rows[1]["hit_ids"], trajectories[1].rows[1]["observation_ids"]) == ([], [])
    assert [one.rows[1]["hit_ids"][:1] for one in (trajectories[0], trajectories[3])] == [["a1"], ["a2"]]


def test_a_question_that_the_server_refuses_ends_its_own_trajectory(paged, base_model):
    renderer = Renderer(load_tokenizer(base_model), prepare("rag"))
    questions = [
        {"question_id": f"q{n}", "question": q} for n, q in enumerate(("Ark?", "Is this too long?", "?"))
    ]
    trajectories = [Trajectory(question, 0) for question in questions]
    params = SimpleNamespace(**section_of("rollout", turn_tokens=96, max_turns=1))
    PLAY(
        Agent(Scripted(renderer, [["Answer: x"] * 2]), Strict(paged), renderer, params, (0, 1)), trajectories
    )
    assert stops(trajectories[1]) == [None, "error: HTTP 413: too long"]
    assert trajectories[0].rows[0]["hit_ids"] and all(len(one.rows) == 2 for one in trajectories)
