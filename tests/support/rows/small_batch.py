"""Small batches of rewards, and their advantages under the paper's settings."""

from types import SimpleNamespace

import pytest

from igpo.credit.methods import METHODS, Rewards

# Section `advantage` as version 2 of the paper has it.
DEFAULTS = {
    "normalisation": "separate",
    "scope": "group",
    "gamma": 1.0,
    "std": "population",
    "lam": 1.0,
    "gain_weight": 1.0,
    "outcome_weight": 1.0,
    "omega": 1.0,
    "alpha": 0.3,
}


def run(method: str, batch: list[Rewards], **settings) -> list[list[float]]:
    """Advantages of a batch; other settings are the defaults."""
    normalised, advantages = METHODS[method](batch, SimpleNamespace(**DEFAULTS | settings))
    shape = [len(t.rewards) for t in batch]
    assert [len(row) for row in normalised] == [len(row) for row in advantages] == shape
    return advantages


def group(rewards: list[list[float]], name: str = "g") -> list[Rewards]:
    """Trajectories that all were shown the same; two tokens a turn, and of one value to a critic."""
    return [Rewards(name, row, [2] * len(row), range(len(row)), [0.5] * len(row)) for row in rewards]


def close(values: list[list[float]], expected: list[list[float]], tolerance: float = 2e-6) -> None:
    for left, right in zip(values, expected, strict=True):
        assert left == pytest.approx(right, abs=tolerance)
