"""A batch of questions through turns: generate, parse, search, append.

All live trajectories advance together: one engine call and one search a turn. A trajectory that fails
is data: its last turn's `stop` says why.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from igpo import protocol
from igpo.engine import Engine, Generation, Request

log = logging.getLogger("igpo")


@dataclass
class Trajectory:
    """One rollout in the making: its rows so far and the token ids of its context."""

    question: dict[str, Any]
    sample: int
    context: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether another turn follows."""
        return self.rows[-1]["stop"] is None

    def add(self, generation: Generation | None, text: str, observation_ids: list[int], **known: Any) -> None:
        """Append a turn; what the turn doesn't know stays null or empty."""
        ids = generation.ids if generation else []
        row = {
            "question_id": self.question["question_id"],
            "sample": self.sample,
            "turn": len(self.rows),
            "policy_ids": ids,
            "policy_logprobs": generation.logprobs if generation else [],
            "observation_ids": observation_ids,
            "text": text,
            "tool": None,
            "queries": [],
            "hit_ids": [],
            "observation": None,
            "answer": None,
            "stop": None,
        }
        self.rows.append(row | known)
        self.context += [*ids, *observation_ids]


def request_seed(seed: int, iteration: int, trajectory: Trajectory) -> int:
    """A 32-bit seed from the identity of a turn, whatever else is in the batch."""
    key = (seed, iteration, trajectory.question["question_id"], trajectory.sample, len(trajectory.rows))
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")


def shown_to_policy(hits: Sequence[Any], params: SimpleNamespace) -> list[Any]:
    """(id, passage text) of hits, as a policy reads them."""
    return [(hit.id, protocol.passage_text(hit.title, hit.text, params.passage_chars)) for hit in hits]


def search_passages(searcher: Any, queries: Sequence[str], params: SimpleNamespace) -> list[list[Any]]:
    """(id, passage text) of the top k of every query; each distinct query is searched once."""
    distinct = sorted(set(queries))
    found = dict(zip(distinct, searcher.search(distinct, params.k), strict=True)) if distinct else {}
    return [shown_to_policy(found[query], params) for query in queries]


def read_on(searcher: Any, trajectory: Trajectory, title: str, params: SimpleNamespace) -> list[Any]:
    """(id, passage text) of a page's next k passages after the last one that the trajectory was shown."""
    shown = [hit for row in reversed(trajectory.rows) for hit in reversed(row["hit_ids"])]
    last = next((name for name in shown if (hit := searcher.get(name)) and hit.title == title), None)
    return shown_to_policy(searcher.following(last, params.k), params) if last is not None else []


def run_agent(
    trajectories: list[Trajectory],
    engine: Engine,
    searcher: Any,
    renderer: protocol.Renderer,
    params: SimpleNamespace,
    seeding: tuple[int, int],
) -> None:
    """Run the search protocol to the end of every trajectory, in place.

    `seeding` is (seed, iteration). Turns end with `stop` answered, format_error, turn_limit or token_limit.
    """
    for trajectory in trajectories:
        trajectory.add(None, "", renderer.prompt(trajectory.question["question"]))
    for number in range(1, params.max_turns + 1):
        for trajectory in trajectories:
            if trajectory.live and len(trajectory.context) + params.turn_tokens > params.max_tokens:
                trajectory.add(None, "", [], stop="token_limit")
        live = [trajectory for trajectory in trajectories if trajectory.live]
        if not live:
            break
        log.info("turn %d of %d: %d trajectories", number, params.max_turns, len(live))
        requests = [Request(t.context, request_seed(*seeding, t)) for t in live]
        generations = engine.generate(requests, params.turn_tokens, params.temperature)
        _act(live, generations, searcher, renderer, params, last=number == params.max_turns)


def _act(
    live: list[Trajectory],
    generations: list[Generation],
    searcher: Any,
    renderer: protocol.Renderer,
    params: SimpleNamespace,
    last: bool,
) -> None:
    texts = [renderer.decode(generation.ids) for generation in generations]
    turns = [protocol.parse(text) for text in texts]
    queries = [query for turn in turns if turn.tool == "web_search" for query in turn.queries]
    hits = dict(zip(queries, search_passages(searcher, queries, params), strict=True))
    for trajectory, generation, text, turn in zip(live, generations, texts, turns, strict=True):
        if not generation.stopped:
            trajectory.add(generation, text, [], stop="token_limit")
        elif turn.error:
            trajectory.add(generation, text, [], stop="format_error")
        elif turn.answer is not None:
            trajectory.add(generation, text, [], answer=turn.answer, stop="answered")
        else:
            shown = [hits[query] for query in turn.queries] if turn.tool == "web_search" else []
            if turn.tool == "open" and turn.tool in params.tools and turn.queries:
                shown = [read_on(searcher, trajectory, turn.queries[0], params)]
            passages = [[text for _, text in row] for row in shown]
            observation = protocol.observation_text(turn, passages, params.tools)
            trajectory.add(
                generation,
                text,
                [] if last else renderer.observation(observation),
                tool=turn.tool,
                queries=turn.queries,
                hit_ids=[hit for row in shown for hit, _ in row],
                observation=observation,
                stop="turn_limit" if last else None,
            )


def run_few_shot(
    trajectories: list[Trajectory],
    engine: Engine,
    searcher: Any | None,
    renderer: protocol.Renderer,
    params: SimpleNamespace,
    seeding: tuple[int, int],
) -> None:
    """Answer in one turn after six examples; with a searcher, after one search for the question itself."""
    questions = [trajectory.question["question"] for trajectory in trajectories]
    found = search_passages(searcher, questions, params) if searcher else [[] for _ in questions]
    for trajectory, hits in zip(trajectories, found, strict=True):
        passages = [text for _, text in hits]
        prompt = protocol.few_shot(trajectory.question["question"], passages)
        trajectory.add(
            None,
            "",
            renderer.encode_plain(prompt),
            tool="web_search" if searcher else None,
            queries=[trajectory.question["question"]] if searcher else [],
            hit_ids=[hit for hit, _ in hits],
            observation="\n".join(passages) if searcher else None,
        )
    requests = [Request(t.context, request_seed(*seeding, t)) for t in trajectories]
    generations = engine.generate(requests, params.turn_tokens, params.temperature, stop="\n")
    for trajectory, generation in zip(trajectories, generations, strict=True):
        text = renderer.decode(generation.ids)
        answer = text.strip().partition("\n")[0].strip()
        trajectory.add(generation, text, [], answer=answer, stop="answered")
