"""A question's trajectories as one tree of tokens: prompt, trajectories, answers forced after their turns."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from igpo.experiment.schema import Rows, trajectories, turn_key
from igpo.tree.segments import Segment, common_prefix
from pipeline.errors import UserError
from pipeline.log import log

TurnKey = tuple[str, int, int]


@dataclass
class Scored:
    """One trajectory's segments in its group's tree: its tokens, and forced answers after turns 0…T-1.

    Branches are listed by turn; by observation: the turn's own, then others in its place; by gold answer.
    """

    rows: Rows
    trunk: Segment
    branches: list[list[list[Segment]]] = field(default_factory=list)


def group_tree(group: list[Rows], root: Segment) -> list[Scored]:
    """Segments of trajectories with one prompt that continues `root`."""
    prompt = Segment(group[0][0]["observation_ids"][len(root.ids) :], root, len(root.ids))
    result = []
    for rows in group:
        ids: list[int] = []
        positions: list[int] = []
        for row in rows[1:]:
            positions += range(len(ids), len(ids) + len(row["policy_ids"]))
            ids += row["policy_ids"] + row["observation_ids"]
        result.append(Scored(rows, Segment(ids, prompt, len(prompt.ids), positions)))
    return result


def force_answers(
    group: list[Scored],
    answers: list[tuple[list[int], list[int]]],
    others: Mapping[TurnKey, list[list[int]]],
) -> None:
    """Add the branches of a question's trajectories, which share those of turn 0.

    `answers` are forced texts with the indices of the gold's tokens, `others` further observations by turn.
    """

    def branches(parent: Segment, after: int, prefix: list[int]) -> list[Segment]:
        return [
            Segment([*prefix, *ids], parent, after, [len(prefix) + i for i in gold_indices])
            for ids, gold_indices in answers
        ]

    (prompt, length), *_ = group[0].trunk.path()
    first = branches(prompt, length, [])
    for trajectory in group:
        trajectory.branches.append([first])
        end = 0
        for row in trajectory.rows[1:-1]:
            policy_end = end + len(row["policy_ids"])
            end = policy_end + len(row["observation_ids"])
            contexts = [(end, []), *((policy_end, ids) for ids in others.get(turn_key(row), []))]
            trajectory.branches.append([branches(trajectory.trunk, *context) for context in contexts])


def other_observations(rows: Rows, count: int) -> dict[TurnKey, list[list[int]]]:
    """For every search turn, the documents that `count` random search turns of other questions were shown.

    The choice depends on the turn's key; there are fewer if the others found fewer, as the log says.
    """
    searches = [row for row in rows if row["turn"] and row["tool"] and row["observation_ids"]]
    with_documents = [
        row for row in searches if row["hit_ids"]
    ]  # others read an error, or that there are no results
    result = {}
    for question_id, turns in itertools.groupby(searches, key=lambda row: row["question_id"]):
        pool = [row["observation_ids"] for row in with_documents if row["question_id"] != question_id]
        for key in map(turn_key, turns):
            result[key] = random.Random(repr(key)).sample(pool, min(count, len(pool)))
    if bare := sum(not sample for sample in result.values()):
        log.warning(
            "%d of %d search turns have a gain of 0: no other question's search found a document",
            bare,
            len(result),
        )
    return result


def tree(group: list[Scored], branches: bool = True) -> list[Segment]:
    """A group's segments in packing order: what all prompts share, its prompt, its trajectories."""
    segments = [segment for segment, _ in group[0].trunk.path()][::-1]
    for trajectory in group:
        segments.append(trajectory.trunk)
        if branches:
            segments += [answer for turn in trajectory.branches for context in turn for answer in context]
    return segments


def groups(rows: Rows) -> list[list[Scored]]:
    """The trajectories of every question, as segments that share prompts and the prompts' common beginning.

    Raises UserError when the samples of a question have different prompts.
    """
    all_trajectories = trajectories(rows)
    prompts = [rows[0]["observation_ids"] for rows in all_trajectories]
    root = Segment(prompts[0][: common_prefix(prompts)])
    result = []
    for question_id, members in itertools.groupby(all_trajectories, key=lambda rows: rows[0]["question_id"]):
        group = list(members)
        if any(t[0]["observation_ids"] != group[0][0]["observation_ids"] for t in group):
            raise UserError(f"rollouts: the samples of question {question_id!r} have different prompts")
        result.append(group_tree(group, root))
    return result


def cut(scored_groups: list[list[Scored]], tokens: int) -> list[list[Scored]]:
    """Groups of at most `tokens` tokens whole, larger ones one trajectory at a time.

    So a group's size does not show in memory.
    """
    result = []
    for group in scored_groups:
        whole = sum(len(segment.ids) for segment in tree(group)) <= tokens
        result += [group] if whole else [[trajectory] for trajectory in group]
    return result
