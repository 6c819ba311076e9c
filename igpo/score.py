"""Scores: `policy, reference, rollouts, questions -> scores.parquet`.

s_t = mean log-probability per token of the gold answer, forced after turn t's observation (paper Eq. 3);
information gain r_t = s_t - s_{t-1} (paper Eq. 4) or exp(s_t) - exp(s_{t-1}) (first version). The gold
answers of all turns, and the log-probabilities that training needs, come from one pass per model over
each group. Unlike the released code, s is computed from the sampled token ids, with true positions, at
temperature 1.
"""

import argparse
import itertools
import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from igpo import reward, schema
from igpo.model import load, load_tokenizer, weights_sha256
from igpo.packing import Segment, check_context, check_model, common_prefix, depth, flatten, logprobs, packs
from igpo.protocol import Renderer
from igpo.schema import Rows, trajectories
from retrieval import stage, tables
from retrieval.encoder import compute_dtype
from retrieval.stage import UserError

log = logging.getLogger("igpo")


@dataclass
class Scored:
    """One trajectory's segments in its group's tree: its tokens, and a forced answer after turns 0…T-1."""

    rows: Rows
    trunk: Segment
    branches: list[Segment]


def group_tree(
    group: list[Rows], root: Segment, forced: tuple[list[int], list[int]] | None = None
) -> list[Scored]:
    """Segments of trajectories with one prompt that continues `root`; `forced`: a gold answer scaffold."""
    prompt = Segment(group[0][0]["observation_ids"][len(root.ids) :], root, len(root.ids))
    scored = []
    for rows in group:
        ids: list[int] = []
        wanted: list[int] = []
        ends = [0]
        for row in rows[1:]:
            wanted += range(len(ids), len(ids) + len(row["policy_ids"]))
            ids += row["policy_ids"] + row["observation_ids"]
            ends.append(len(ids))
        trunk = Segment(ids, prompt, len(prompt.ids), wanted)
        branches = [Segment(forced[0], trunk, end, forced[1]) for end in ends[:-1]] if forced else []
        scored.append(Scored(rows, trunk, branches))
    return scored


def tree(group: list[Scored], branches: bool = True) -> list[Segment]:
    """A group's segments in packing order: what all prompts share, its prompt, its trajectories."""
    ancestors = [segment for segment, _ in group[0].trunk.path()]
    return [*ancestors[::-1], *(s for t in group for s in (t.trunk, *(t.branches if branches else [])))]


def groups(rows: Rows, forced: dict[str, tuple[list[int], list[int]]] | None = None) -> list[list[Scored]]:
    """The trajectories of every question, as segments that share prompts and the prompts' common beginning.

    Raises UserError when the samples of a question have different prompts.
    """
    listed = trajectories(rows)
    prompts = [rows[0]["observation_ids"] for rows in listed]
    root = Segment(prompts[0][: common_prefix(prompts)])
    result = []
    for question_id, members in itertools.groupby(listed, key=lambda rows: rows[0]["question_id"]):
        group = list(members)
        if any(t[0]["observation_ids"] != group[0][0]["observation_ids"] for t in group):
            raise UserError(f"rollouts: the samples of question {question_id!r} have different prompts")
        result.append(group_tree(group, root, forced[question_id] if forced else None))
    return result


def cut(scored: list[list[Scored]], tokens: int) -> list[list[Scored]]:
    """Groups of at most `tokens` tokens whole, larger ones one trajectory at a time.

    So a group's size does not show in memory.
    """
    result = []
    for group in scored:
        whole = sum(len(segment.ids) for segment in tree(group)) <= tokens
        result += [group] if whole else [[trajectory] for trajectory in group]
    return result


@torch.inference_mode()
def run_model(
    folder: Path, trees: list[list[Segment]], tokens: int, dtype: torch.dtype
) -> dict[int, list[float]]:
    """Log-probabilities of every segment's wanted tokens, by `id(segment)`."""
    model = load(folder, dtype, "tree").eval()
    check_model(model, max(depth(segment) for segment in flatten(trees)))
    values: dict[int, list[float]] = {}
    for packed, _ in packs(trees, tokens, model.device, "scored"):
        for segment, part in zip(packed.segments, packed.split(logprobs(model, packed)), strict=True):
            values[id(segment)] = part.tolist()
    return values


@torch.inference_mode()
def run_naive(folder: Path, trees: list[list[Segment]], dtype: torch.dtype) -> dict[int, list[float]]:
    """The same by one plain forward pass per segment: slow, for comparison and for any kind of layer."""
    model = load(folder, dtype, "sdpa").eval()
    segments = flatten(trees)
    check_context(model, max(depth(segment) for segment in segments))
    values: dict[int, list[float]] = {}
    for segment in segments:
        wanted = torch.tensor(segment.wanted, dtype=torch.long)
        ids = torch.tensor(segment.path_ids())
        at = wanted + len(ids) - len(segment.ids)
        values[id(segment)] = _following(model, ids, at).tolist() if len(at) else []
    return values


def _following(model: Any, ids: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the tokens at places `at` of one sequence."""
    logits = model(ids[None].to(model.device), logits_to_keep=(at - 1).to(model.device)).logits[0].float()
    return logits.log_softmax(-1).cpu().gather(1, ids[at][:, None])[:, 0]


def check_vocabulary(policy: Any, reference: Path) -> None:
    """Raise UserError unless the reference has the same token ids as the policy's tokenizer."""
    if load_tokenizer(reference).get_vocab() != policy.get_vocab():
        raise UserError(f"{reference}: the reference's vocabulary differs from {policy.name_or_path}'s")


def score_trajectory(
    scored: Scored,
    values: dict[int, list[float]],
    reference: dict[int, list[float]],
    golds: list[str],
    params: SimpleNamespace,
) -> Rows:
    """The score rows of one trajectory, turns 0…T."""
    old, ref = values[id(scored.trunk)], reference[id(scored.trunk)]
    gold = [math.fsum(values[id(b)]) / len(b.wanted) for b in scored.branches]
    basis = [math.exp(s) for s in gold] if params.info_gain == "prob_diff" else gold
    last, rows, used = len(scored.rows) - 1, [], 0
    for turn, row in enumerate(scored.rows):
        length = len(row["policy_ids"])
        final = turn == last
        answer = row["answer"] if final else None
        rows.append(
            {
                **{name: row[name] for name in schema.TURN_KEY},
                "gold_logprob": None if final else gold[turn],
                "info_gain": basis[turn] - basis[turn - 1] if 0 < turn < last else None,
                "outcome": reward.outcome(answer, golds, params.format_penalty) if final else None,
                "f1": reward.f1(answer, golds) if final else None,
                "em": reward.exact_match(answer, golds) if final else None,
                "format_ok": answer is not None if final else None,
                "old_logprobs": old[used : used + length],
                "ref_logprobs": ref[used : used + length],
            }
        )
        used += length
    return rows


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    parser.add_argument("--policy", type=Path, required=True, metavar="DIR")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="default: the policy itself")
    parser.add_argument("--rollouts", type=Path, required=True, metavar="FILE")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")


def gold_answers(questions: Path, rows: Rows) -> dict[str, list[str]]:
    """Gold answers of the questions in `rows`. Raises UserError where one is unknown or has no answer."""
    known = {
        row["question_id"]: row["answers"] for row in tables.read(questions, schema.QUESTIONS).to_pylist()
    }
    asked = sorted({row["question_id"] for row in rows})
    for question_id in asked:
        answers = known.get(question_id)
        if answers is None:
            raise UserError(f"{questions}: no question {question_id!r}, which the rollouts hold")
        if not answers or not answers[0].strip():
            raise UserError(f"{questions}: question {question_id!r} has no gold answer")
    return {question_id: known[question_id] for question_id in asked}


def run(args: argparse.Namespace, params: SimpleNamespace) -> str:
    """Score every trajectory and write the table."""
    rows = tables.read(args.rollouts, schema.ROLLOUTS).to_pylist()
    if not rows:
        raise UserError(f"{args.rollouts}: no rows")
    golds = gold_answers(args.questions, rows)
    tokenizer = load_tokenizer(args.policy)
    renderer = Renderer(tokenizer)
    forced = {question_id: renderer.forced_answer(answers[0]) for question_id, answers in golds.items()}
    scored = cut(groups(rows, forced), params.batch_tokens)
    dtype = compute_dtype() if params.dtype == "auto" else getattr(torch, params.dtype)
    policy, reference = weights_sha256(args.policy), weights_sha256(args.reference or args.policy)
    if reference != policy:
        check_vocabulary(tokenizer, args.reference)
    run_passes = run_naive if params.passes == "naive" else partial(run_model, tokens=params.batch_tokens)
    values = others = run_passes(args.policy, [tree(group) for group in scored], dtype=dtype)
    if reference != policy:
        others = run_passes(args.reference, [tree(group, branches=False) for group in scored], dtype=dtype)
    scores = [
        row
        for group in scored
        for trajectory in group
        for row in score_trajectory(
            trajectory, values, others, golds[trajectory.rows[0]["question_id"]], params
        )
    ]
    meta = {"policy": policy, "reference": reference, "rollouts": tables.sha256(args.rollouts)}
    tables.write(scores, schema.SCORES, args.out, schema.TURN_KEY, meta)
    gains = [row["info_gain"] for row in scores if row["info_gain"] is not None]
    mean = f"{math.fsum(gains) / len(gains):+.3f}" if gains else "none"
    return f"{len(scores)} turns, mean information gain {mean}"


main = stage.command("score", arguments, run, __doc__)

if __name__ == "__main__":
    main()
