"""Groups that teach nothing, by method: `rollouts and scores of iterations -> collapse.{csv,md,tex}`.

A group whose advantages are all 0 moves no weight. Every arm of `tables.collapse` is asked what it would have
made of the rollouts and scores that a run left; nothing is sampled, scored or trained for it. `joint`
normalisation isn't asked: it gives advantages to groups in which nothing differs.
"""

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from igpo.comparisons import recomputed
from igpo.comparisons.recomputed import Batch
from igpo.experiment import checks, schema
from igpo.reporting import published
from igpo.reporting.cells import percent
from igpo.reporting.text import Part, write_forms
from pipeline import stage, storage
from pipeline.errors import UserError
from pipeline.settings import apply_arm

FEWEST = 10  # groups of a question type that gets a row
COLUMNS = ("source", "by", "value", "method", "groups", "zero_share", "low", "high", *recomputed.PROVENANCE)
TITLES = {
    "policy": "acting policy, after so many updates",
    "data": "data set, hops and question type",
    "size": "group size",
}
NOTE = (
    "Per cent of groups whose advantages are all 0, had the method been given these rollouts and scores; the"
    " CSV file has 95 % Wilson intervals. By data set and by group size all acting policies count together. A"
    " smaller group is the first samples of the whole one; the other tables are of whole groups. A question"
    " that several iterations draw is a group in each. Not every value is a signal: igpo, ig and gtpo compare"
    " turns of different depth, so that even equal trajectories may get some (group_turn's don't), and"
    " REINFORCE++ whitens over the batch, so that a group of equal outcomes gets one value for all."
)


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % Wilson interval of a share of `n` > 0."""
    share = hits / n
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def sizes(batches: Sequence[Batch]) -> list[int]:
    """2, 4, 8 … below the samples of a group, and these."""
    whole = max(len(group) for batch in batches for group in batch.groups().values())
    powers = itertools.takewhile(lambda size: size < whole, (2**n for n in itertools.count(1)))
    return [*powers, whole]


def verdicts(batches: Sequence[Batch], methods: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Whether a method, given with its arm's parameters, gives a group of some size nothing: a row each."""
    rows = []
    for batch, size, (name, params) in itertools.product(batches, sizes(batches), methods.items()):
        trajectories = batch.first(size)
        values = recomputed.advantages(trajectories, recomputed.settings(params, batch))
        credits = zip(trajectories, values, strict=True)
        for question, group in itertools.groupby(credits, key=lambda pair: pair[0].group):
            zero = all(value == 0 for _, row in group for value in row)
            rows.append((batch.policy, size, question, name, zero))
    return pd.DataFrame(rows, columns=["policy", "size", "question", "method", "zero"])


def traits(question: Mapping[str, Any]) -> list[str]:
    """What a question counts as: its benchmark, its hops if they are known, its type."""
    hops = ["one hop" if question["hops"] == 1 else "two hops or more"] if question["hops"] else []
    return [question["benchmark"], *hops, *(["type " + question["type"]] if question["type"] else [])]


def rows_of(table: pd.DataFrame, questions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per value and method, by each of `TITLES`: the share of verdicts that are zero."""
    whole = table[table["size"] == table["size"].max()]
    data = whole.assign(data=[traits(questions[name]) for name in whole["question"]]).explode("data")
    types = data["data"].str.startswith("type ")
    several = data.groupby(["data", "method"])["zero"].transform("size") >= FEWEST
    data = pd.concat([data[~types], data[types & several]])
    rows = []
    for by, part in {"policy": whole, "data": data, "size": table}.items():
        for value, group in part.groupby(by, sort=False):
            for method, zeros in group.groupby("method", sort=False)["zero"]:
                hits, n = int(zeros.sum()), len(zeros)
                low, high = wilson(hits, n)
                row = {"source": "ours", "by": by, "value": str(value), "method": method}
                rows.append(row | {"groups": n, "zero_share": hits / n, "low": low, "high": high})
    return rows


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(heads, cells) of one part: values by methods, in per cent."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = []
    for value, group in itertools.groupby(rows, key=lambda row: row["value"]):
        mine = list(group)
        lines.append([value, str(mine[0]["groups"]), *(percent(row["zero_share"]) for row in mine)])
    return ["", "groups", *methods], lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's files."""
    checks.arguments(parser)
    parser.add_argument("--iterations", type=Path, nargs="*", default=[], metavar="DIR", help="runs/ARM/sS/K")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="train questions")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> str:
    """Write the table in three forms."""
    params = checks.read(args)
    if not args.iterations:
        raise UserError(
            "--iterations: none to look at: `run` needs iterations, and an arm without a `rollout` or `score`"
            " section of its own"
        )
    batches = recomputed.read_batches(args.iterations)
    questions = {
        row["question_id"]: row for row in storage.read(args.questions, schema.QUESTIONS).to_pylist()
    }
    if missing := sorted({group for batch in batches for group in batch.groups()} - set(questions)):
        raise UserError(f"{args.questions}: lacks {missing[0]!r}, which the rollouts hold")
    methods = {name: apply_arm(params, name) for name in params["tables"]["collapse"]}
    rows = rows_of(verdicts(batches, methods), questions)
    origins = {name: recomputed.provenance(own) for name, own in recomputed.by_policy(batches).items()}
    parts = [
        Part(f"Ours: zero-advantage groups by {title}", *cells([row for row in rows if row["by"] == by]))
        for by, title in TITLES.items()
    ]
    parts[-1] = parts[-1]._replace(note=f"{NOTE} {published.WITHOUT_NUMBERS['collapse']}")
    parts.append(Part("Where ours come from", *recomputed.provenance_cells(batches), recomputed.FILES))
    rows = [row | (origins[row["value"]] if row["by"] == "policy" else {}) for row in rows]
    write_forms(rows, COLUMNS, parts, args.out / "collapse")
    return f"{len(batches)} batches, {len(methods)} methods"


main = stage.command(None, arguments, run, __doc__)

if __name__ == "__main__":
    main()
