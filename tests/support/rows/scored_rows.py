"""Small rollouts for the score stage, and its slow reference."""

from pathlib import Path

import torch

from igpo.experiment import schema
from pipeline import storage


def rollout(question: str, sample: int, prompt: list[int], turns: list[tuple[list[int], list[int]]], answer):
    """Rollout rows from (policy_ids, observation_ids) of every turn."""
    rows = []
    for number, (policy, observation) in enumerate([([], prompt), *turns]):
        row = dict.fromkeys(schema.ROLLOUTS.names)
        last = number == len(turns)
        row |= {"question_id": question, "sample": sample, "turn": number, "queries": []}
        row["hit_ids"] = ["d"] if number and observation else []
        row |= {"policy_ids": policy, "observation_ids": observation, "policy_logprobs": [0.0] * len(policy)}
        row["tool"] = None if last else "web_search"
        rows.append(row | {"answer": answer if last else None, "stop": "answered" if last else None})
    return rows


GOLDS = {"q1": ["1819"], "q2": ["Jane Austen", "Austen", " "]}


def naive_gold(model, renderer, context, gold):
    """Mean gold log-probability after a context by one plain forward pass."""
    ids, chosen = renderer.forced_answer(gold)
    logits = model(torch.tensor([context + ids])).logits[0].log_softmax(-1)
    return sum(float(logits[len(context) + i - 1, ids[i]]) for i in chosen) / len(chosen)


def context(rows, turn, observation=None):
    """All tokens up to a turn's end; with `observation` in place of the turn's own."""
    ids = [token for row in rows[:turn] for token in row["policy_ids"] + row["observation_ids"]]
    own = rows[turn]["observation_ids"] if observation is None else observation
    return ids + rows[turn]["policy_ids"] + own


def stage_words(folder: Path, policy: Path, reference: Path, rows) -> list[str]:
    """Command line of the stage over `rows`, with the questions that they ask."""
    questions = [
        dict.fromkeys(schema.QUESTIONS.names)
        | {"question_id": name, "answers": golds, "supporting_ids": [], "hops": 1}
        for name, golds in GOLDS.items()
    ]
    storage.write(questions, schema.QUESTIONS, folder / "questions.parquet", schema.QUESTIONS_KEY)
    storage.write(rows, schema.ROLLOUTS, folder / "rollouts.parquet", schema.TURN_KEY)
    files = {"rollouts": folder / "rollouts.parquet", "questions": folder / "questions.parquet"}
    files |= {"policy": policy, "reference": reference, "out": folder / "scores.parquet"}
    return [word for name, path in files.items() for word in (f"--{name}", str(path))]
