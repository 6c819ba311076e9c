"""Trajectories that don't wait for each other: each goes on as soon as its own search is back.

The engine takes requests while it works. Searches are made beside it; those that come in while one is out
go out together as the next. Tokens are those of `Agent.run` if the engine's depend on prompt and seed alone.
"""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from igpo.acting.agent import Agent, Call, Trajectory
from igpo.acting.engine import Generation, Request


@dataclass
class Stream:
    """Plays an agent's trajectories; `owners` says whose requests the engine works on, by number."""

    agent: Agent
    pool: ThreadPoolExecutor
    owners: dict[int, Trajectory | Call] = field(default_factory=dict)
    number: int = 0

    def submit(self, whose: Trajectory | Call, request: Request) -> None:
        """Ask the engine for a trajectory's next turn, or for what a call's reader says."""
        stops = self.agent.renderer.protocol.stops if isinstance(whose, Trajectory) else ()
        params = self.agent.params
        self.agent.engine.submit(self.number, request, params.turn_tokens, params.temperature, stops)
        self.owners[self.number] = whose
        self.number += 1

    def generated(self, number: int, generation: Generation) -> list[Call]:
        """Go on with what a finished request was for; returns the call that it makes, if any."""
        whose = self.owners.pop(number)
        if isinstance(whose, Trajectory):
            return self.agent.decide([whose], [generation])
        self.agent.condense([whose], [generation])
        self.go_on([whose])
        return []

    def searched(self, calls: list[Call]) -> None:
        """Go on with calls whose tools have answered."""
        readings = self.agent.readings(calls)
        for call, request in readings:
            self.submit(call, request)
        being_read = {id(call) for call, _ in readings}
        self.go_on([call for call in calls if id(call) not in being_read])

    def go_on(self, calls: list[Call]) -> None:
        """Append the calls' turns and ask for the next ones."""
        self.agent.append(calls)
        for call in calls:
            if call.trajectory.live:
                self.submit(call.trajectory, self.agent.request(call.trajectory))

    def play(self) -> None:
        """Work until nothing is asked, called or searched any more."""
        calls: list[Call] = []
        out: list[Call] = []
        search: Future[None] | None = None
        while self.owners or calls or search:
            if search is None and calls:
                out, calls = calls, []
                search = self.pool.submit(self.agent.find, out)
            if self.owners:
                for number, generation in self.agent.engine.step():
                    calls += self.generated(number, generation)
            elif search:
                wait([search])
            if search and search.done():
                search.result()
                self.searched(out)
                search = None


def run(agent: Agent, trajectories: list[Trajectory]) -> None:
    """Play every trajectory to its end, in place."""
    agent.begin(trajectories)
    with ThreadPoolExecutor(1) as pool:
        stream = Stream(agent, pool)
        for trajectory in trajectories:
            if trajectory.live:
                stream.submit(trajectory, agent.request(trajectory))
        stream.play()
