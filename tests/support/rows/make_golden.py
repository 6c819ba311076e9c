"""Makes the numbers of golden.py again, with numpy and by the paper's Eq. 5 and 6 alone:

    PYTHONPATH=. python tests/support/rows/make_golden.py

"separate": step rewards and outcomes of a group are pools of their own; "joint": one pool. A pool's z-scores
have the population deviation + 1e-6, and are 0 if its variance is at most 1e-12. A turn's advantage is the
discounted sum of the z-scores from it on.
"""

import numpy as np
from golden import CASES, EXPECTED


def z_scores(pool: list[float]) -> list[float]:
    values = np.array(pool)
    if values.size == 0 or values.var() <= 1e-12:
        return [0.0] * values.size
    return list((values - values.mean()) / (values.std() + 1e-6))


def normalised(group: list[list[float]], normalisation: str) -> list[list[float]]:
    """Every reward's z-score, in the shape of the rewards."""
    steps = [reward for rewards in group for reward in rewards[:-1]]
    outcomes = [rewards[-1] for rewards in group]
    if normalisation == "joint":
        together = z_scores([*steps, *outcomes])
        step_scores, outcome_scores = together[: len(steps)], together[len(steps) :]
    else:
        step_scores, outcome_scores = z_scores(steps), z_scores(outcomes)
    scores = iter(step_scores)
    return [
        [*(next(scores) for _ in rewards[:-1]), last]
        for rewards, last in zip(group, outcome_scores, strict=True)
    ]


def advantages(group: list[list[float]], normalisation: str, gamma: float) -> list[list[float]]:
    """Sums over the turns from t on, each written out."""
    return [
        [sum(gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))]
        for row in normalised(group, normalisation)
    ]


def made() -> dict[tuple[str, str, float], dict[str, list[list[float]]]]:
    """What EXPECTED should hold, not yet rounded."""
    return {
        (case, how, gamma): {name: advantages(group, how, gamma) for name, group in CASES[case].items()}
        for case, how, gamma in EXPECTED
    }


if __name__ == "__main__":
    for key, groups in made().items():
        print(key)
        for name, rows in groups.items():
            print(f"  {name}: {[[round(float(value), 6) for value in row] for row in rows]}")
