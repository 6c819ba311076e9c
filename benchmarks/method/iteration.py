"""Rollouts and whole iterations of the pipeline and of plain loops, on questions and an index of results/."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.method import plain, update
from benchmarks.method.sizes import Size
from benchmarks.method.workload import forced
from benchmarks.pages.measure import alternate, median_quotient, ratios
from benchmarks.pages.page import Row
from igpo import protocols, train
from igpo.acting import stream
from igpo.acting.agent import Agent, Trajectory, request_seed
from igpo.acting.engine import Request, VllmEngine
from igpo.experiment import schema
from igpo.experiment.policy import load, load_tokenizer
from igpo.experiment.schema import Rows
from igpo.protocols.protocol import Turn
from igpo.protocols.renderer import Renderer
from igpo.rollout import choose_questions
from pipeline import sections, storage
from pipeline.devices import compute_dtype
from pipeline.settings import read_params
from retrieval.indexes.searcher import Searcher, open_searcher

POLICY, INDEX = Path("results/warmup"), Path("results/index/bm25")
QUESTIONS = Path("results/questions/train.parquet")
PARAMS = sections.Rollout(**read_params([Path("params.yaml")])["rollout"])
SHORT_QUESTIONS = 4  # with 8 trajectories each
# Turns of 60 tokens, each followed by about 250: three passages of 300 characters.
LONG = {"turn_tokens": 60, "k": 3, "passage_chars": 300, "max_tokens": 4096, "questions": 1}
SEEDING = (1, 1)  # seed and iteration
PLAIN = 2  # trajectories whose plain scores and training are timed: no more than two are in memory at a time
Play = Callable[[Any], list[Trajectory]]


def search_again(text: str) -> Turn:
    """A turn that searches for whatever was sampled, so that every trajectory has all its turns."""
    return Turn(tool="web_search", queries=[text])


def play(searcher: Searcher, protocol: protocols.Protocol, exact: bool = True, **over: Any) -> Play:
    """The pipeline's rollouts by an engine, with settings laid over section `rollout`."""
    params = dataclasses.replace(PARAMS, exact=exact, **over)
    questions = choose_questions(storage.read(QUESTIONS, schema.QUESTIONS).to_pylist(), params, *SEEDING)
    renderer = Renderer(load_tokenizer(POLICY), protocol)

    def rollouts(engine: Any) -> list[Trajectory]:
        trajectories = [Trajectory(question, s) for question in questions for s in range(params.samples)]
        player = Agent(engine, searcher, renderer, params, SEEDING)
        player.run(trajectories) if params.exact else stream.run(player, trajectories)
        return trajectories

    return rollouts


def sampled(trajectory: Trajectory) -> int:
    """Tokens that the policy chose."""
    return sum(len(row["policy_ids"]) for row in trajectory.rows)


def asked(trajectories: list[Trajectory], number: int) -> tuple[list[Request], list[int]]:
    """What the engine was asked in a turn of these trajectories, and how many tokens it sampled."""
    requests, lengths = [], []
    for trajectory in trajectories:
        before = dataclasses.replace(trajectory, rows=trajectory.rows[:number])
        for row in trajectory.rows[number : number + 1]:
            if row["policy_ids"]:
                parts = (turn["policy_ids"] + turn["observation_ids"] for turn in before.rows)
                requests.append(Request([*itertools.chain(*parts)], request_seed(*SEEDING, before)))
                lengths.append(len(row["policy_ids"]))
    return requests, lengths


def open_engine() -> VllmEngine:
    """The default experiment's warm start, with room for the longest trajectory here."""
    return VllmEngine(POLICY, LONG["max_tokens"], load_tokenizer(POLICY), stops=False)


def rollout_rows(size: Size) -> list[Row]:
    """The default experiment's rollouts, and as many tokens by vLLM's own `generate` after their prompts.

    A third side lets `generate` sample the same turns one after another, with the same seeds and with what
    tools showed in its prompts: what ours would take if only the engine took time. No side finds anything of
    an earlier repeat in the prefix cache.
    """
    searcher = open_searcher([INDEX])
    start = time.perf_counter()
    engine = open_engine()
    start_seconds = time.perf_counter() - start
    protocol = protocols.prepare(PARAMS.protocol, PARAMS.tools)
    over = {"questions": SHORT_QUESTIONS, "samples": size.samples[0]}
    ours = play(searcher, protocol, **over)
    as_they_come = play(searcher, protocol, exact=False, **over)
    trajectories = ours(engine)
    prompts = [(trajectory.rows[0]["observation_ids"], None) for trajectory in trajectories]
    lengths = [sampled(trajectory) for trajectory in trajectories]
    turns = [asked(trajectories, number) for number in range(1, PARAMS.max_turns + 1)]

    def cold(side: Callable[[], object]) -> Callable[[], object]:
        return lambda: (engine.llm.reset_prefix_cache(), side())

    seconds = alternate(
        {
            "agent": cold(lambda: ours(engine)),
            "as they come": cold(lambda: as_they_come(engine)),
            "generate": cold(lambda: plain.vllm_generate(engine.llm, prompts, lengths)),
            "turns": cold(lambda: [plain.vllm_generate(engine.llm, *turn) for turn in turns if turn[0]]),
        },
        size.repeats,
    )
    start_row = Row("start of the engine, its import included, s", None, [start_seconds])
    return [*rollout_comparison(seconds, trajectories), start_row]


def rollout_comparison(seconds: dict[str, list[float]], trajectories: list[Trajectory]) -> list[Row]:
    """Rows of these trajectories' rollouts by every side's seconds."""
    lengths = [sampled(trajectory) for trajectory in trajectories]
    tool_tokens = sum(len(row["observation_ids"]) for t in trajectories for row in t.rows[1:])
    return [
        Row(
            f"rollout tokens/s of {len(trajectories)} trajectories, engine warm: ours, none waiting for "
            "another (`rollout.exact: false`) / vLLM's `generate` without tools",
            "≥ 0.8",
            ratios(seconds["generate"], seconds["as they come"]),
        ),
        Row(
            "the same for ours turn by turn, the default",
            None,
            ratios(seconds["generate"], seconds["agent"]),
        ),
        Row(
            "the same for vLLM's `generate` of these turns, what tools showed in its prompts",
            None,
            ratios(seconds["generate"], seconds["turns"]),
        ),
        Row("rollout tokens/s: ours", None, [sum(lengths) / value for value in seconds["agent"]]),
        Row("tokens that tools showed per token sampled", None, [tool_tokens / sum(lengths)]),
    ]


def iteration_rows(size: Size) -> list[Row]:
    """One iteration of a group whose trajectories search in every turn: ours and the plain loop.

    Both score and train on the trajectories of the pipeline's first rollouts. Neither makes a pass of the
    reference, which is the policy itself in a first iteration.
    """
    protocol = dataclasses.replace(protocols.prepare(PARAMS.protocol), parse=search_again, cut_answers=True)
    engine, samples = open_engine(), size.samples[1]
    rollouts = play(open_searcher([INDEX]), protocol, **LONG, max_turns=size.long_turns, samples=samples)
    rows = [row for trajectory in rollouts(engine) for row in trajectory.rows]
    tokenizer, trajectories = load_tokenizer(POLICY), schema.trajectories(rows)
    model = load(POLICY, torch.float32, "tree").eval()
    plain_model = load(POLICY, compute_dtype(), "sdpa").eval()
    training_model, optimiser = train.open_training(POLICY, update.PARAMS)
    trees, single = update.training_groups(model, rows, tokenizer)

    def scores(gain: bool) -> None:
        update.scored(model, update.scoring_trees(rows, tokenizer, information_gain=gain))

    def plain_scores() -> None:
        for trajectory in trajectories[:PLAIN]:
            plain.gold_by_turn(plain_model, trajectory, forced(tokenizer))
            plain.old_logprobs(plain_model, trajectory)

    def trains() -> None:
        training_model.set_attn_implementation("tree")
        train.update(training_model, optimiser, trees, update.PARAMS)

    def plain_trains() -> None:
        training_model.set_attn_implementation("sdpa")
        plain.padded_update(training_model, optimiser, single[:PLAIN], update.PARAMS)

    seconds = alternate(
        {
            "rollouts": lambda: (engine.llm.reset_prefix_cache(), rollouts(engine)),
            "plain rollouts": lambda: rollouts(plain.Generate(plain_model, tokenizer)),
            "scores": lambda: scores(True),
            "plain scores": plain_scores,
            "training": trains,
            "plain training": plain_trains,
        },
        size.repeats,
    )
    for name in ("plain scores", "plain training"):
        seconds[name] = [value * samples / PLAIN for value in seconds[name]]
    gain = {"scores without gain": lambda: scores(False), "scores with gain": lambda: scores(True)}
    return comparison(seconds | alternate(gain, size.repeats * size.pairs), shape_of(rows))


def shape_of(rows: Rows) -> str:
    """The trajectories in words; the numbers of tokens are means. The last turn has no observation."""

    def mean(name: str, turn_lists: Iterable[Rows]) -> float:
        return statistics.mean(len(row[name]) for turns in turn_lists for row in turns)

    trajectories = schema.trajectories(rows)
    prompt = mean("observation_ids", (turns[:1] for turns in trajectories))
    policy = mean("policy_ids", (turns[1:] for turns in trajectories))
    observation = mean("observation_ids", (turns[1:-1] for turns in trajectories))
    return (
        f"{len(trajectories)} trajectories of {len(trajectories[0]) - 1} turns, prompt of {prompt:.0f} "
        f"tokens, {policy:.0f} + {observation:.0f} a turn"
    )


def comparison(seconds: dict[str, list[float]], shape: str) -> list[Row]:
    """Rows of a whole iteration and of its parts."""
    parts = ("rollouts", "scores", "training")
    ours = [sum(values) for values in zip(*(seconds[name] for name in parts), strict=True)]
    theirs = [sum(values) for values in zip(*(seconds[f"plain {name}"] for name in parts), strict=True)]
    gain_seconds = [
        a - b for a, b in zip(*(seconds[f"scores {way} gain"] for way in ("with", "without")), strict=True)
    ]
    return [
        Row(f"iteration wall time, {shape}: ours / plain loop", "≤ 0.25", ratios(ours, theirs)),
        *(
            Row(f"of it {name}: ours / plain loop", None, ratios(seconds[name], seconds[f"plain {name}"]))
            for name in parts
        ),
        Row("iteration wall time: ours, s", None, ours),
        Row(
            f"share of our iteration that information gain adds, from {len(gain_seconds)} pairs",
            "≤ 0.02",
            [1 / value for value in median_quotient(ours, gain_seconds)],
        ),
    ]
