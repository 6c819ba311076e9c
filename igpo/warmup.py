"""Supervised warm-up: `policy, train questions, indexes -> policy folder` that speaks protocol `igpo`.

A small model doesn't write it by itself (the paper's experiment has no such step). Traces are
built by rule from questions whose supporting passages are known: search every hop's title, quote the evidence
that was found, answer. A question whose search doesn't show its evidence is left out. Loss on the policy's
tokens only.
"""

import argparse
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from igpo import protocols
from igpo.acting import agent
from igpo.acting.engine import Generation
from igpo.acting.tools import search_all
from igpo.data.vitalqa_rules import CAPITAL
from igpo.experiment import schema
from igpo.experiment.policy import context, load, load_tokenizer, save, weights_sha256
from igpo.protocols.igpo import call_text
from igpo.protocols.protocol import Protocol, passage_text
from igpo.protocols.renderer import Renderer
from igpo.training.checkpoint import take_step
from igpo.training.distributed import check_size
from igpo.tree.forward import autocast, logprobs
from igpo.tree.groups import groups, tree
from igpo.tree.segments import packs
from pipeline import sections, stage, storage
from pipeline.errors import UserError
from pipeline.log import log
from retrieval.indexes.searcher import check_corpus, open_searcher

BEFORE, AFTER = 60, 30  # characters of context around a quoted fact


def quote(passage: str, fact: str) -> str | None:
    """The clause of a passage around a fact, without the title ahead; None if the fact is missing."""
    start = passage.find(": ") + 2
    at = passage.find(fact, start)
    if at < 0:
        return None
    end = at + len(fact)
    first = max(start, passage.rfind(". ", start, at) + 2)
    if at - first > BEFORE:
        first = passage.find(" ", at - BEFORE) + 1
    stops = [stop for mark in ".;" if 0 <= (stop := passage.find(mark, end)) <= end + AFTER]
    return passage[first : min(stops, default=end)]


def head(passage: str) -> str:
    """A passage's first clause after its title: in the embedded corpus, the short description."""
    return passage[passage.find(": ") + 2 :].partition(". ")[0]


class Hop(NamedTuple):
    """One supporting passage of a question: its title, what a search for it asks, and what that finds."""

    title: str
    query: str
    clue: str  # the part of the query that the question or an earlier passage must have named
    hits: list[tuple[str, str]]  # (id, passage as the model reads it)


def trace(question: dict[str, Any], hops: list[Hop], renderer: Renderer) -> agent.Trajectory | None:
    """A finished trajectory.

    After every search the policy says what was found so far and the next step; before it answers, the
    question again. None if a later hop's clue or the answer stands neither in the question nor in the quotes.
    """
    question_text, answer = question["question"], question["answers"][0]
    trajectory = agent.Trajectory(question, 0)
    trajectory.add(None, "", renderer.prompt(question_text))
    facts = [*(hop.title for hop in hops[1:]), answer]
    quotes: list[str] = []
    for number, (hop, fact) in enumerate(zip(hops, facts, strict=True)):
        if number and hop.clue.lower() not in " ".join([question_text, *quotes]).lower():
            return None
        recap = "".join(f"{text}. " for text in quotes)
        _add(
            trajectory,
            f"\n{recap}I need to look up {hop.query}.\n</think>\n{call_text([hop.query])}",
            renderer,
            [text for _, text in hop.hits],
        )
        supporting = dict(hop.hits).get(question["supporting_ids"][number])
        if supporting is None:
            return None
        quotes.append(quote(supporting, fact) or head(supporting))
    if answer not in " ".join(quotes):
        return None
    # The question again right before its answer: the form in which a language model has met both.
    conclusion = " ".join([*(f"{text}." for text in quotes), question_text, answer])
    _add(trajectory, f"\n{conclusion}\n</think>\n<answer>\n{answer}\n</answer>", renderer)
    return trajectory


def _add(
    trajectory: agent.Trajectory, text: str, renderer: Renderer, passages: list[str] | None = None
) -> None:
    ids = renderer.turn(text)
    observation = [] if passages is None else renderer.observation("\n".join(passages))
    stop = "answered" if passages is None else None
    trajectory.add(Generation(ids, [0.0] * len(ids), True), text, observation, stop=stop)


def hop_of(searcher: Any, question: dict[str, Any], passage: str) -> Hop:
    """The hop to a supporting passage, its hits still to be found.

    A search asks for the passage's title. Nobody can ask for the title that is the answer: a capital is
    looked up by its country. Raises UserError if the index lacks the passage.
    """
    article = searcher.get(passage)
    if article is None:
        raise UserError(
            f"the index lacks {passage!r}, a supporting passage of question {question['question_id']!r}: "
            "index the corpus that the questions belong to"
        )
    title = article.title
    seat = re.search(CAPITAL, article.text.partition(". ")[0])
    if title == question["answers"][0] and seat:
        return Hop(title, f"the capital of {seat['in']}", seat["in"], [])
    return Hop(title, title, title, [])


def build_traces(
    questions: list[dict[str, Any]], searcher: Any, renderer: Renderer, params: sections.Warmup
) -> list[agent.Trajectory]:
    """At most `params.traces` traces, in a seeded order."""
    pool = schema.of_benchmarks(questions, params.benchmarks, "warmup.benchmarks")
    pool = sorted((q for q in pool if q["supporting_ids"]), key=lambda q: q["question_id"])
    random.Random(params.seed).shuffle(pool)
    pool = (schema.in_turns(pool) if params.by_type else pool)[: 2 * params.traces]
    hops = [[hop_of(searcher, q, passage) for passage in q["supporting_ids"]] for q in pool]
    queries = [hop.query for question_hops in hops for hop in question_hops]
    hit_lists = search_all(searcher, queries, params.k)
    passages = [
        [(hit.id, passage_text(hit.title, hit.text, params.passage_chars)) for hit in hits]
        for hits in hit_lists
    ]
    hits = dict(zip(queries, passages, strict=True))
    candidates = [
        trace(question, [hop._replace(hits=hits[hop.query]) for hop in question_hops], renderer)
        for question, question_hops in zip(pool, hops, strict=True)
    ]
    traces = [candidate for candidate in candidates if candidate is not None]
    log.info("%d traces of %d questions show their evidence", len(traces), len(pool))
    if len(traces) < params.traces:
        raise UserError(
            f"warmup.traces is {params.traces}, but only {len(traces)} questions with supporting_ids "
            f"and a shown answer were found for benchmarks {params.benchmarks}"
        )
    return traces[: params.traces]


def check_context(traces: list[agent.Trajectory], limit: int, policy: Path) -> None:
    """Raise UserError for the first trace beyond the `limit` tokens of the policy's context."""
    for trajectory in traces:
        if len(trajectory.context) > limit:
            raise UserError(
                f"question {trajectory.question['question_id']!r}: its trace of {len(trajectory.context)} "
                f"tokens exceeds the context of {limit} tokens of {policy}: lower warmup.k or "
                "warmup.passage_chars"
            )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Rises over the first tenth of the steps, then falls linearly to a fifth of the peak."""
    rise = max(1, steps // 10)
    return peak * min((step + 1) / rise, 1.0) * (1 - 0.8 * step / max(1, steps - 1))


def _accumulate(model: Any, batch: list[agent.Trajectory], tokens: int) -> float:
    """Add the gradient of the batch's mean loss per policy token to the weights; returns the loss."""
    trajectories = sorted(batch, key=lambda trajectory: trajectory.question["question_id"])
    rows = [row for trajectory in trajectories for row in trajectory.rows]
    total = sum(len(row["policy_ids"]) for row in rows)
    result = 0.0
    trees = [tree(group) for group in groups(rows)]
    for packed, _ in packs(trees, tokens, model.device, "learned from"):
        with autocast(model.device.type):
            loss = -logprobs(model, packed).sum() / total
        loss.backward()
        result += loss.item()
    return result


def learn(model: Any, traces: list[agent.Trajectory], params: sections.Warmup) -> list[float]:
    """Maximise the traces' policy tokens; returns the mean loss per token of every update."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=0.0, fused=True)
    steps = [
        traces[low : low + params.batch]
        for _ in range(params.epochs)
        for low in range(0, len(traces), params.batch)
    ]
    losses = []
    for number, batch in enumerate(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number, len(steps), params.lr)
        losses.append(_accumulate(model, batch, params.batch_tokens))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        take_step(optimiser)
        log.info("update %d of %d: loss %.3f", number + 1, len(steps), losses[-1])
    check_size(model, "warmup.lr")
    return losses


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--index", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--date", default=Protocol.date, help="rollout.date: prompts hold it as rollouts do")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace, params: sections.Warmup) -> str:
    """Build traces, learn them, write the policy."""
    tokenizer = load_tokenizer(args.policy)
    traces: list[agent.Trajectory] = []
    if params.traces:
        questions = storage.read(args.questions, schema.QUESTIONS).to_pylist()
        searcher = open_searcher(args.index)
        check_corpus(searcher, args.questions)
        renderer = Renderer(tokenizer, protocols.prepare("igpo", date=args.date))
        traces = build_traces(questions, searcher, renderer, params)
        check_context(traces, context(args.policy), args.policy)
    torch.manual_seed(params.seed)
    model = load(args.policy, torch.float32, "tree").train()
    losses = learn(model, traces, params)
    final = sum(losses[-5:]) / len(losses[-5:]) if losses else None
    manifest = {
        "source": f"warm-up of {weights_sha256(args.policy)[:12]}",
        "iteration": 0,
        "parents": [weights_sha256(args.policy)],
        "inputs": {"questions": storage.sha256(args.questions)},
        "metrics": {"traces": len(traces), "loss": final},
    }
    save(model.bfloat16(), tokenizer, args.out, manifest)
    if not traces:
        return "no traces: the warm start is the policy itself"
    return f"{len(traces)} traces, {len(losses)} updates, loss {losses[0]:.3f} -> {losses[-1]:.3f}"


main = stage.command(sections.Warmup, arguments, run, __doc__)

if __name__ == "__main__":
    main()
