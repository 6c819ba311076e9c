"""Rollout and score rows with given rewards."""

from igpo.experiment import schema


def table_rows(question: str, rewards: list[list[float]]) -> tuple[list[dict], list[dict]]:
    """Rollout and score rows of a question; turn t has t policy tokens and is answered with "hit t"."""
    rollouts, scores = [], []
    for sample, values in enumerate(rewards):
        for turn, value in enumerate([None, *values]):
            last = turn == len(values)
            key = {"question_id": question, "sample": sample, "turn": turn}
            hit = None if last or not turn else f"hit {turn}"
            rollout = {"policy_ids": [5] * turn, "observation": hit, "stop": "answered" if last else None}
            rollouts.append(dict.fromkeys(schema.ROLLOUTS.names) | key | rollout)
            reward = {"outcome" if last else "step_reward": value}
            scores.append(dict.fromkeys(schema.SCORES.names) | key | reward)
    return rollouts, scores
