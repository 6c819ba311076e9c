"""A batch of questions through turns: generate, parse, search, append.

With `rollout.exact` all live trajectories advance together: one engine call and one search a turn. Without
it none waits for another (`igpo.acting.stream`). A trajectory that fails is data: its last turn's `stop` says
why. A call whose result would leave no room for another turn ends its trajectory, so that contexts fit into
`max_tokens`, with a forced answer of up to `turn_tokens` too; only a prompt can be longer.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from igpo.acting.engine import Engine, Generation, Request
from igpo.acting.tools import read_on, search_apart
from igpo.protocols.protocol import Turn, observation_text
from igpo.protocols.renderer import Renderer
from pipeline import sections
from pipeline.log import log
from retrieval.indexes.hits import Hit
from retrieval.indexes.modes import Oracle
from retrieval.server.exchange import Refused


@dataclass
class Trajectory:
    """One rollout in the making: its rows so far and the token ids of its context.

    `clock` has the times of every turn, in seconds since 1970: when it was asked for, when it was generated,
    and, if it called a tool, when that had answered.
    """

    question: dict[str, Any]
    sample: int
    context: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    clock: list[list[float]] = field(default_factory=list)

    @property
    def live(self) -> bool:
        """Whether another turn follows."""
        return self.rows[-1]["stop"] is None

    @property
    def turn(self) -> int:
        """The number of its next turn; the prompt is turn 0."""
        return len(self.rows)

    def add(self, generation: Generation | None, text: str, observation_ids: list[int], **cells: Any) -> None:
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
        self.rows.append(row | cells)
        self.context += [*ids, *observation_ids]


@dataclass
class Call:
    """A turn that calls a tool or is told that it is malformed. With a `stop` it is the trajectory's last."""

    trajectory: Trajectory
    generation: Generation
    text: str
    turn: Turn
    hits: list[list[Hit]] = field(default_factory=list)
    observation: str = ""
    stop: str | None = None


def request_seed(seed: int, iteration: int, trajectory: Trajectory, *purpose: str) -> int:
    """A 32-bit seed from the identity of a turn, whatever else is in the batch."""
    key = (seed, iteration, trajectory.question["question_id"], trajectory.sample, trajectory.turn)
    return int.from_bytes(hashlib.sha256(repr(key + purpose).encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Agent:
    """Plays the renderer's protocol. `seeding` is (seed, iteration), `params` section `rollout`."""

    engine: Engine
    searcher: Any
    renderer: Renderer
    params: sections.Rollout
    seeding: tuple[int, int]

    def run(self, trajectories: list[Trajectory]) -> None:
        """Play every trajectory to its end, in place.

        Last turns have `stop` answered, format_error, turn_limit, token_limit (an empty turn after a prompt
        that leaves no room), or "error: …" with what a search server said when it refused the queries.
        """
        self.begin(trajectories)
        for number in range(1, self.params.max_turns + 1):
            live = [trajectory for trajectory in trajectories if trajectory.live]
            if not live:
                break
            log.info("turn %d of %d: %d trajectories", number, self.params.max_turns, len(live))
            generations = self.generate(list(map(self.request, live)), self.renderer.protocol.stops)
            calls = self.decide(live, generations)
            self.find(calls)
            readings = self.readings(calls)
            if readings:
                generations = self.generate([request for _, request in readings])
                self.condense([call for call, _ in readings], generations)
            self.append(calls)

    def begin(self, trajectories: list[Trajectory]) -> None:
        """Give every trajectory its prompt, and an end at once to one whose prompt leaves no room."""
        self.ask(trajectories)
        for trajectory in trajectories:
            if trajectory.live and not self.room_after(trajectory.context):
                trajectory.add(None, "", [], stop="token_limit")

    def request(self, trajectory: Trajectory) -> Request:
        """What the engine is asked for the trajectory's next turn, whose time begins."""
        trajectory.clock.append([time.time()])
        return Request(trajectory.context, request_seed(*self.seeding, trajectory))

    def is_last(self, trajectory: Trajectory) -> bool:
        """Whether the trajectory's next turn is the last that it may have."""
        return trajectory.turn == self.params.max_turns

    def room_after(self, *parts: Sequence[int]) -> bool:
        """Whether another turn fits after these token ids."""
        return sum(map(len, parts)) + self.params.turn_tokens <= self.params.max_tokens

    def generate(self, requests: list[Request], stops: Sequence[str] = ()) -> list[Generation]:
        """One engine call with the section's limits."""
        return self.engine.generate(requests, self.params.turn_tokens, self.params.temperature, stops)

    def ask(self, trajectories: list[Trajectory]) -> None:
        """Turn 0: the prompt, in some protocols with what a search for the question finds."""
        if not self.renderer.protocol.searches_first:
            for trajectory in trajectories:
                trajectory.add(None, "", self.renderer.prompt(trajectory.question["question"]))
            return
        questions = [trajectory.question["question"] for trajectory in trajectories]
        pairs = zip(trajectories, questions, strict=True)
        queries = [self.asked(trajectory, [question]) for trajectory, question in pairs]
        results = search_apart(self.searcher, queries, self.params.k)
        for trajectory, question, hits in zip(trajectories, questions, results, strict=True):
            if isinstance(hits, Refused):
                trajectory.add(None, "", self.renderer.prompt(question))
                trajectory.add(None, "", [], stop=f"error: {hits.reason}")
                continue
            passages = self.renderer.protocol.passages([question], hits, self.params.passage_chars)
            trajectory.add(
                None,
                "",
                self.renderer.prompt(question, passages),
                tool="web_search",
                queries=[question],
                hit_ids=[hit.id for hit in hits[0]],
                observation=passages,
            )

    def decide(self, live: Sequence[Trajectory], generations: Sequence[Generation]) -> list[Call]:
        """End the trajectories that answered or failed; returns the calls of the others.

        If the protocol says what follows a malformed turn, that turn is a call too, unless it is the last
        or leaves no room for another.
        """
        calls, invalid = [], self.renderer.protocol.invalid
        for trajectory, generation in zip(live, generations, strict=True):
            trajectory.clock[-1].append(time.time())
            goes_on = invalid is not None and not self.is_last(trajectory)
            message = self.renderer.encode(invalid or "") if goes_on else None
            text = self.renderer.decode(generation.ids, generation.stopped)
            turn = self.renderer.protocol.parse(text)
            open_generation = self.going_on(trajectory, generation, message) if turn.error else None
            if open_generation is not None:
                calls.append(Call(trajectory, open_generation, text, turn))
            elif not generation.stopped and not self.renderer.protocol.cut_answers:
                trajectory.add(generation, text, [], stop="token_limit")
            elif turn.error:
                trajectory.add(generation, text, [], stop="format_error")
            elif turn.answer is not None:
                trajectory.add(generation, text, [], answer=turn.answer, stop="answered")
            else:
                calls.append(Call(trajectory, generation, text, turn))
        return calls

    def going_on(
        self, trajectory: Trajectory, generation: Generation, message: list[int] | None
    ) -> Generation | None:
        """A malformed turn without the token that would end the message; None if it is the last turn."""
        if message is None:
            return None
        ids = self.renderer.unended(generation.ids, generation.stopped)
        if not self.room_after(trajectory.context, ids, message):
            return None
        return Generation(ids, generation.logprobs[: len(ids)], generation.stopped)

    def append(self, calls: list[Call]) -> None:
        """Append the calls' turns; what a trajectory's last turn found is noted but not read."""
        for call in calls:
            call.trajectory.clock[-1].append(time.time())
            encode = self.renderer.encode if call.turn.error else self.renderer.observation
            call.stop = call.stop or ("turn_limit" if self.is_last(call.trajectory) else None)
            ids = [] if call.stop else encode(call.observation)
            if not (call.stop or self.room_after(call.trajectory.context, call.generation.ids, ids)):
                ids, call.stop = [], "token_limit"
            call.trajectory.add(
                call.generation,
                call.text,
                ids,
                tool=call.turn.tool,
                queries=call.turn.queries,
                hit_ids=[hit.id for hits in call.hits for hit in hits],
                observation=call.observation,
                stop=call.stop,
            )

    def find(self, calls: list[Call]) -> None:
        """What the called tools find, and say, noted in the calls.

        A call whose queries the server refuses gets a `stop`; each is sent by itself then, to learn which.
        """
        params = self.params
        searches = [call for call in calls if call.turn.tool == "web_search"]
        queries = [self.asked(call.trajectory, call.turn.queries) for call in searches]
        results = search_apart(self.searcher, queries, params.k)
        for call, hits in zip(searches, results, strict=True):
            if isinstance(hits, Refused):
                call.stop = f"error: {hits.reason}"
            else:
                call.hits = hits
        for call in calls:
            turn = call.turn
            if turn.tool == "open" and "open" in params.tools and turn.queries:
                call.hits = [read_on(self.searcher, call.trajectory.rows, turn.queries[0], params.k)]
            if call.stop is None:
                call.observation = observation_text(
                    self.renderer.protocol, turn, call.hits, params.tools, params.passage_chars
                )

    def asked(self, trajectory: Trajectory, queries: list[str]) -> list[str]:
        """What is searched for: the queries, or for an oracle the question's id in their place."""
        if isinstance(self.searcher, Oracle):
            return [trajectory.question["question_id"]] * len(queries)
        return queries

    def readings(self, calls: list[Call]) -> list[tuple[Call, Request]]:
        """The calls in which the policy shall put what helps in the place of what was found, and its prompts.

        These tokens belong to no trajectory. A prompt that doesn't fit into `max_tokens` ends its trajectory.
        """
        pairs = []
        for call in calls if self.renderer.protocol.reader else []:
            if self.is_last(call.trajectory) or not any(call.hits):
                continue
            reasoning = "".join([*(row["text"] for row in call.trajectory.rows), call.text])
            prompt = self.renderer.reading(reasoning, call.turn.queries[0], call.observation)
            if not self.room_after(prompt):
                call.stop = "token_limit"
                continue
            seed = request_seed(*self.seeding, call.trajectory, "reading")
            pairs.append((call, Request(prompt, seed)))
        return pairs

    def condense(self, calls: list[Call], generations: list[Generation]) -> None:
        """Note what the policy read in the place of what was found."""
        for call, generation in zip(calls, generations, strict=True):
            text = self.renderer.decode(generation.ids, generation.stopped)
            call.observation = self.renderer.protocol.condensed(text)
