"""Rollouts: `policy, questions, indexes -> rollouts.parquet`, one row per turn.

Iteration k takes the k-th slice of the seeded shuffle of the questions, so that iterations don't overlap
before all questions were seen.
"""

import argparse
import random
from pathlib import Path
from typing import Any

from igpo import protocols
from igpo.acting import agent, stream
from igpo.acting.engine import open_engine
from igpo.experiment import schema, shards
from igpo.experiment.policy import load_tokenizer, weights_sha256
from igpo.protocols.renderer import Renderer
from pipeline import cost, sections, stage, storage
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.indexes import modes
from retrieval.indexes.searcher import check_corpus
from retrieval.server.client import UNKNOWN, open_search

CLOCKED = 8  # trajectories whose times are kept, at least those that MLflow shows


def choose_questions(
    questions: list[dict[str, Any]], params: sections.Rollout, seed: int, iteration: int
) -> list[dict[str, Any]]:
    """The questions of one iteration, in the order of their ids."""
    pool = schema.of_benchmarks(questions, params.benchmarks, "rollout.benchmarks")
    pool.sort(key=lambda question: question["question_id"])
    random.Random(seed).shuffle(pool)
    pool = schema.in_turns(pool) if params.by_type else pool
    number = min(params.questions or len(pool), len(pool))
    start = (iteration - 1) * number
    selection = [pool[i % len(pool)] for i in range(start, start + number)]
    return sorted(selection, key=lambda question: question["question_id"])


def shares(
    questions: list[dict[str, Any]], params: sections.Rollout, shard: int | None
) -> list[list[dict[str, Any]]]:
    """The questions that a shard plays, in batches of about `rollout.at_once` trajectories.

    With `rollout.exact` a shard gets whole batches, so that a sequence has the same neighbours for any number
    of shards. If these are more than the batches, some get none.
    """
    size = max(1, (params.at_once or len(questions) * params.samples) // params.samples)
    if not params.exact:
        questions = questions[slice(*shards.bounds(len(questions), shard, params))]
    batches = [questions[low : low + size] for low in range(0, len(questions), size)]
    return batches[slice(*shards.bounds(len(batches), shard, params))] if params.exact else batches


def control(
    params: sections.Rollout, index: Any, questions: list[dict[str, Any]], seed: int
) -> modes.Control:
    """The retriever of a control experiment in the index's place. Raises UserError if it can't be had."""
    if "open" in params.tools:
        raise UserError(f"rollout.retriever: {params.retriever!r} has no pages to open; tools: [web_search]")
    return modes.control(params.retriever, index, questions, params.noise, seed)


def play(
    batches: list[list[agent.Trajectory]],
    searcher: Any,
    renderer: Renderer,
    args: argparse.Namespace,
    params: sections.Rollout,
) -> None:
    """Play all trajectories, a batch at a time, each as if it were the engine's first; no engine for none."""
    if not batches:
        return
    stops = bool(renderer.protocol.stops)
    engine = open_engine(
        args.policy, params.engine, params.max_tokens, renderer.tokenizer, stops, params.tensor_parallel
    )
    player = agent.Agent(engine, searcher, renderer, params, (args.seed, args.iteration))
    for number, batch in enumerate(batches, start=1):
        log.info("batch %d of %d: %d trajectories", number, len(batches), len(batch))
        engine.forget()
        with cost.phase("turns"):
            player.run(batch) if params.exact else stream.run(player, batch)


def clock(trajectories: list[agent.Trajectory]) -> list[Any]:
    """(question, sample, times of its turns) of the first trajectories, for their traces in MLflow."""
    return [(t.question["question_id"], t.sample, t.clock) for t in trajectories[:CLOCKED]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--index", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--search", metavar="URL", help="a /retrieve server instead of --index")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of questions and the sampling")
    parser.add_argument(
        "--iteration", type=stage.positive(), default=1, metavar="K", help="which slice of the questions"
    )
    shards.argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def run(args: argparse.Namespace, params: sections.Rollout) -> str:
    """Roll out and write the table."""
    questions = storage.read(args.questions, schema.QUESTIONS).to_pylist()
    if not questions:
        raise UserError(
            f"{args.questions}: no question; validations need dev questions: or run.validate_every: 0"
        )
    selection = choose_questions(questions, params, args.seed, args.iteration)
    protocol = protocols.prepare(params.protocol, params.tools, params.instructions, params.date)
    renderer = Renderer(load_tokenizer(args.policy), protocol)
    batches = [
        [agent.Trajectory(question, sample) for question in batch for sample in range(params.samples)]
        for batch in shares(selection, params, args.shard)
    ]
    index: Any = open_search(args.index, args.search, params.k) if protocol.searches else None
    check_corpus(index, args.questions)
    if "open" in params.tools and getattr(index, "identity", "") == UNKNOWN:
        raise UserError(
            f"{args.search}: only `retrieval serve` has pages to open; rollout.tools: [web_search]"
        )
    searcher = index
    if index and params.retriever != "index":
        searcher = control(params, index, selection, args.seed)
    play(batches, searcher, renderer, args, params)
    trajectories = [trajectory for batch in batches for trajectory in batch]
    rows = [row for trajectory in trajectories for row in trajectory.rows]
    cost.note(tokens=schema.tokens(rows), clock=clock(trajectories))
    identity = getattr(index, "identity", "none")  # a server tells it with its first answer
    meta = {
        "policy": weights_sha256(args.policy),
        "questions": storage.sha256(args.questions),
        "retriever": identity if searcher is index else f"{params.retriever} over {identity}",
        "decoding": "greedy" if params.temperature == 0 else f"temperature {params.temperature}",
        "protocol": params.protocol,
    }
    storage.write(rows, schema.ROLLOUTS, args.out, schema.TURN_KEY, meta)
    answer_count = sum(row["stop"] == "answered" for row in rows)
    return f"{len(trajectories)} trajectories, {len(rows) - len(trajectories)} turns, {answer_count} answered"


main = stage.command(sections.Rollout, arguments, run, __doc__)

if __name__ == "__main__":
    main()
