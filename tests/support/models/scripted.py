"""Trajectories whose policy writes what a script says, in every protocol."""

from types import SimpleNamespace

from igpo.acting.agent import Agent, Trajectory
from igpo.acting.engine import Generation
from igpo.protocols import MODULES, find, prepare
from igpo.protocols.igpo import call_text
from igpo.protocols.renderer import Renderer
from retrieval.indexes.hits import Hit

PROTOCOLS = {name: find(name) for name in MODULES}
DATE = "2020-02-29"
QUESTION = {"question_id": "q", "question": "Who wrote Moby-Dick?", "answers": ["Melville"]}
IGPO_SEARCH = f"\nI look.\n</think>\n{call_text(['moby'])}"
IGPO_ANSWER = "\nI know.\n</think>\n<answer>\nMelville\n</answer>"
# (what a policy writes to search for "moby", and to answer "Melville") after what its protocol gives
WRITTEN = {
    "igpo": (IGPO_SEARCH, IGPO_ANSWER),
    "deepresearcher": (IGPO_SEARCH, IGPO_ANSWER),
    "search_r1": ("<think> I look. </think>\n<search> moby </search>", "<answer> Melville </answer>"),
    "r1_searcher": (
        " I look. <|begin_of_query|> moby <|end_of_query|>",
        "I know. </think>\n\n<answer> Melville </answer>",
    ),
    "react": (
        " I look.\nAction: web_search\nAction Input: moby\nObservation:",
        " I know.\nFinal Answer: Melville",
    ),
    "search_o1": ("I look. <|begin_search_query|>moby<|end_search_query|>", "So it is \\boxed{Melville}."),
}


class Scripted:
    """Samples the given texts in turn, ended as their protocol ends a turn."""

    def __init__(self, renderer: Renderer, texts: list[str]):
        self.renderer, self.texts, self.prompts = renderer, iter(texts), []

    def generate(self, requests, max_new, temperature, stops):
        self.prompts += [list(request.prompt) for request in requests]
        text = next(self.texts)
        ends = any(text.endswith(stop) for stop in stops)
        ids = self.renderer.encode(text) if ends else self.renderer.turn(text)
        return [Generation(ids, [0.0] * len(ids), True) for _ in requests]


class Found:
    """Finds the one passage, whatever is asked."""

    def __init__(self, text: str):
        self.hit = Hit("p", "Moby-Dick", text, 1.0)

    def search(self, queries, k):
        return [[self.hit] for _ in queries]


def play(
    words, name: str, texts: list[str], passage: str, max_turns: int = 4
) -> tuple[Trajectory, Scripted, Renderer]:
    renderer = Renderer(words, prepare(name, date=DATE))
    params = SimpleNamespace(
        tools=["web_search"],
        k=1,
        passage_chars=None,
        max_turns=max_turns,
        turn_tokens=64,
        max_tokens=8192,
        temperature=1.0,
    )
    trajectory, engine = Trajectory(QUESTION, 0), Scripted(renderer, texts)
    Agent(engine, Found(passage), renderer, params, (0, 1)).run([trajectory])
    return trajectory, engine, renderer


def turns_of(name: str) -> list[str]:
    """A search and an answer, with what Search-o1 writes in between while it reads."""
    search, answer = WRITTEN[name]
    return [search, *(["So.\n**Final Information**\nby Melville"] if name == "search_o1" else []), answer]
