"""Scores: `policy, reference, rollouts, questions -> scores.parquet`.

s_t = mean log-probability per token of the gold answer, forced after turn t's observation (paper Eq. 3);
what a search turn was worth follows from it (`igpo.credit.step_rewards`). The gold answers of all turns, and
the log-probabilities that training needs, come from one pass per model over each group. Unlike the released
code, s is computed from the sampled token ids, with true positions, at temperature 1.
"""

import argparse
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from igpo import protocols
from igpo.credit import answer_metrics
from igpo.credit.step_rewards import STEP_REWARDS, Evidence, Vector, log_prob_diff, tf_idf
from igpo.experiment import schema, shards
from igpo.experiment.policy import context, load_tokenizer, weights_sha256
from igpo.experiment.schema import Rows
from igpo.protocols.renderer import Renderer
from igpo.training import distributed
from igpo.training.launch import over_processes
from igpo.tree.groups import Scored, cut, force_answers, groups, other_observations, tree
from igpo.tree.passes import run_model, run_naive
from igpo.tree.segments import Segment, depth, with_neighbours
from pipeline import cost, sections, stage, storage
from pipeline.devices import compute_dtype
from pipeline.errors import UserError
from pipeline.log import log


def check_vocabulary(policy: Any, reference: Path) -> None:
    """Raise UserError unless the reference has the same token ids as the policy's tokenizer."""
    if load_tokenizer(reference).get_vocab() != policy.get_vocab():
        raise UserError(f"{reference}: the reference's vocabulary differs from {policy.name_or_path}'s")


def evidence(
    trajectory: Scored,
    values: dict[int, list[float]],
    question: Mapping[str, Any],
    vectors: Mapping[str, Vector],
) -> Evidence:
    """What the step rewards of a trajectory follow from; of several gold answers the likeliest counts."""

    def mean(answer: Segment) -> float:
        return math.fsum(values[id(answer)]) / len(answer.targets)

    gold = [[max(map(mean, answers)) for answers in contexts] for contexts in trajectory.branches]
    hits = [row["hit_ids"] for row in trajectory.rows[1:-1]]
    return Evidence(gold, hits, question["supporting_ids"], vectors)


def score_trajectory(
    trajectory: Scored,
    values: dict[int, list[float]],
    reference: dict[int, list[float]],
    turn_evidence: Evidence,
    golds: list[str],
    params: sections.Score,
) -> Rows:
    """The score rows of one trajectory, turns 0…T."""
    old, ref = values[id(trajectory.trunk)], reference[id(trajectory.trunk)]
    gains, rewards = log_prob_diff(turn_evidence), STEP_REWARDS[params.step_reward](turn_evidence)
    last, rows, offset = len(trajectory.rows) - 1, [], 0
    for turn, row in enumerate(trajectory.rows):
        length = len(row["policy_ids"])
        final = turn == last
        answer = row["answer"] if final else None
        rows.append(
            {
                **{name: row[name] for name in schema.TURN_KEY},
                "gold_logprob": None if final else turn_evidence.gold[turn][0],
                "info_gain": gains[turn - 1] if 0 < turn < last else None,
                "step_reward": rewards[turn - 1] if 0 < turn < last else None,
                "outcome": answer_metrics.outcome(answer, golds, params.format_penalty) if final else None,
                "f1": answer_metrics.f1(answer, golds) if final else None,
                "em": answer_metrics.exact_match(answer, golds) if final else None,
                "format_ok": answer is not None if final else None,
                "old_logprobs": old[offset : offset + length],
                "ref_logprobs": ref[offset : offset + length],
            }
        )
        offset += length
    return rows


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="default: the policy itself")
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--corpus", type=Path, metavar="FILE", help="needed for step_reward: stepsearch")
    shards.argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def asked_questions(questions: Path, rows: Rows) -> dict[str, dict[str, Any]]:
    """The questions in `rows` by id. Raises UserError if one is unknown or its first answer is empty."""
    by_id = {row["question_id"]: row for row in storage.read(questions, schema.QUESTIONS).to_pylist()}
    ids = sorted({row["question_id"] for row in rows})
    for question_id in ids:
        if question_id not in by_id:
            raise UserError(f"{questions}: no question {question_id!r}, which the rollouts hold")
        answers = by_id[question_id]["answers"]
        if not answers or not answers[0].strip():
            raise UserError(f"{questions}: question {question_id!r} has no gold answer")
    return {question_id: by_id[question_id] for question_id in ids}


def passage_vectors(
    corpus: Path | None, questions: Mapping[str, Mapping[str, Any]], rows: Rows
) -> dict[str, Vector]:
    """TF-IDF vectors of all passages found and of those that support the questions.

    Raises UserError without a corpus, if it lacks a passage, or a question has no supporting passage.
    """
    if corpus is None:
        raise UserError("score.step_reward: stepsearch compares passages: give --corpus")
    bare = [name for name, question in questions.items() if not question["supporting_ids"]]
    if bare:
        raise UserError(f"score.step_reward: stepsearch: question {bare[0]!r} has no supporting passages")
    passage_ids = {hit for row in rows for hit in row["hit_ids"]}
    passage_ids.update(name for question in questions.values() for name in question["supporting_ids"])
    table = storage.read(corpus, storage.CORPUS)
    passages = table.filter(pc.is_in(table["id"], pa.array(sorted(passage_ids)))).to_pylist()
    texts = {row["id"]: f"{row['title']} {row['text']}" for row in passages}
    if missing := passage_ids - set(texts):
        raise UserError(f"{corpus}: no passage {min(missing)!r}, which the rollouts or questions name")
    return tf_idf(dict(sorted(texts.items())))


def forced_groups(
    rows: Rows, renderer: Renderer, questions: Mapping[str, Mapping[str, Any]], params: sections.Score
) -> list[list[Scored]]:
    """The trajectories of every question with the gold answers forced after every turn."""
    scored_groups = groups(rows)
    others = (
        other_observations(rows, params.counterfactuals) if params.step_reward == "counterfactual" else {}
    )
    for group in scored_groups:
        golds = questions[group[0].rows[0]["question_id"]]["answers"]
        forced_golds = golds[:1] if params.gold == "first" else [gold for gold in golds if gold.strip()]
        answers = [renderer.forced_answer(gold) for gold in forced_golds]
        force_answers(group, answers, others)
    return scored_groups


def fit_context(scored_groups: list[list[Scored]], limit: int, policy: Path) -> None:
    """Leave out, in place, the other observations with which a forced answer ends beyond `limit` tokens.

    Raises UserError for a question whose prompt alone ends there: rollouts hold it, with an empty turn.
    """
    total = left_out = 0
    for trajectory in itertools.chain.from_iterable(scored_groups):
        longest = max(map(depth, trajectory.branches[0][0]))
        if longest > limit:
            prompt = trajectory.rows[0]
            raise UserError(
                f"question {prompt['question_id']!r}: its prompt of {len(prompt['observation_ids'])} tokens, "
                f"{longest} with a gold answer, exceeds the context of {limit} tokens of {policy}: leave the "
                "question out, or lower what its prompt shows (rollout.k, passage_chars, instructions)"
            )
        for contexts in trajectory.branches:
            fitting = [answers for answers in contexts[1:] if max(map(depth, answers)) <= limit]
            total += len(contexts) - 1
            left_out += len(contexts) - 1 - len(fitting)
            contexts[1:] = fitting
    if left_out:
        log.warning(
            "%d of %d other observations are left out of the gains: with them a trajectory exceeds the "
            "context of %d tokens; lower rollout.max_tokens to keep all",
            left_out,
            total,
            limit,
        )


def own_part(all_groups: list[list[Scored]], scored_groups: list[list[Scored]], low: int, high: int) -> slice:
    """Which of `scored_groups`, some cut to trajectories, are of the questions `low` to `high` - 1."""
    question_ids = {group[0].rows[0]["question_id"] for group in all_groups[low:high]}
    places = [
        place for place, group in enumerate(scored_groups) if group[0].rows[0]["question_id"] in question_ids
    ]
    return slice(places[0], places[-1] + 1) if places else slice(0, 0)


def model_values(
    folder: Path, trees: list[list[Segment]], own: slice, params: sections.Score
) -> dict[int, list[float]]:
    """Log-probabilities under a model, by `id(segment)`, of the trees `own`."""
    if not trees[own]:
        return {}
    dtype = compute_dtype() if params.dtype == "auto" else getattr(torch, params.dtype)
    if params.passes == "naive":
        return run_naive(folder, trees[own], dtype)
    return run_model(folder, with_neighbours(trees, own, params.batch_tokens), params.batch_tokens, dtype)


def run(args: argparse.Namespace, params: sections.Score) -> str:
    """Score every trajectory and write the table."""
    table = storage.read(args.rollouts, schema.ROLLOUTS)
    rows = table.to_pylist()
    if not rows:
        raise UserError(f"{args.rollouts}: no rows")
    questions = asked_questions(args.questions, rows)
    # a table that another program wrote is taken for the default protocol's
    protocol = protocols.find((table.schema.metadata or {}).get(b"protocol", b"igpo").decode())
    tokenizer = load_tokenizer(args.policy)
    policy, reference = weights_sha256(args.policy), weights_sha256(args.reference or args.policy)
    if reference != policy:
        check_vocabulary(tokenizer, args.reference)
    vectors = passage_vectors(args.corpus, questions, rows) if params.step_reward == "stepsearch" else {}
    all_groups = forced_groups(rows, Renderer(tokenizer, protocol), questions, params)
    fit_context(all_groups, context(args.policy), args.policy)
    scored_groups = cut(all_groups, params.batch_tokens)
    own = own_part(all_groups, scored_groups, *shards.bounds(len(all_groups), args.shard, params))
    values = reference_values = model_values(
        args.policy, [tree(group) for group in scored_groups], own, params
    )
    if reference != policy:
        bare = [tree(group, branches=False) for group in scored_groups]
        reference_values = model_values(args.reference, bare, own, params)
    scores: Rows = []
    trajectories = list(itertools.chain.from_iterable(scored_groups[own]))
    for trajectory in trajectories:
        question = questions[trajectory.rows[0]["question_id"]]
        turn_evidence = evidence(trajectory, values, question, vectors)
        scores += score_trajectory(
            trajectory, values, reference_values, turn_evidence, question["answers"], params
        )
    cost.note(tokens=sum(schema.tokens(trajectory.rows) for trajectory in trajectories))
    meta = {"policy": policy, "reference": reference}
    meta |= {name: storage.sha256(getattr(args, name)) for name in ("rollouts", "questions")}
    if distributed.is_first():
        storage.write(scores, schema.SCORES, args.out, schema.TURN_KEY, meta)
    gains = [row["info_gain"] for row in scores if row["info_gain"] is not None]
    mean = f"{math.fsum(gains) / len(gains):+.3f}" if gains else "none"
    return f"{len(scores)} turns, mean information gain {mean}"


main = stage.command(sections.Score, arguments, over_processes("igpo.score", run), __doc__)

if __name__ == "__main__":
    main()
