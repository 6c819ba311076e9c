"""When a run goes wrong: bounds on an iteration's health, each with remedies that can be set here.

A remedy is written as `--set` takes it. Most are published, by DeepResearcher (arXiv:2504.03160), DR-Venus
(arXiv:2604.19859), verl's RFC #7244, DAPO (arXiv:2503.14476) or IGPO's released code.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pipeline import sections


class Sign(NamedTuple):
    """What a collapse is called, and what to try."""

    what: str
    remedy: str


# By the name in health.json, which is that of the bound in section `health`.
SIGNS = {
    "searches": Sign(
        "searches per trajectory",
        "score.format_penalty=-0.5 (a search risks less); with information gain also "
        "advantage.normalisation=raw_ig (DR-Venus), or advantage.method=gtpo advantage.scope=group_turn "
        "advantage.std=none (verl RFC #7244)",
    ),
    "well_formed": Sign(
        "share of well-formed trajectories",
        "a lower train.lr, or score.format_penalty=-1.0 (DeepResearcher)",
    ),
    "updated_well_formed": Sign(
        "validation's share of well-formed trajectories",
        "a lower rollout.temperature, whose samples are closer to greedy answers",
    ),
    "entropy": Sign(
        "entropy per sampled token",
        "train.entropy=0.001 (IGPO's released code), or train.clip_high=0.28 (DAPO) with train.updates > 1",
    ),
}
UPDATE = {
    "loss": "loss",
    "grad_norm": "gradient norm",
    "kl": "KL",
}  # of an update, by their names in policy.json
NOT_FINITE = "a lower train.lr or train.max_grad_norm"


def warnings(
    numbers: Mapping[str, float | None],
    start: Mapping[str, float | None],
    update: Mapping[str, float],
    params: sections.Health,
) -> list[str]:
    """A sentence for every sign of a collapse, with a remedy; none of a healthy iteration.

    `numbers` are those of this iteration, `start` those of the run's first iteration and of the warm start's
    validation, `update` the metrics of this iteration's update; `params` is section `health`. What is
    unknown, or 0 at the start, gives no warning.
    """
    sentences = []
    for name, sign in SIGNS.items():
        value, first, share = numbers.get(name), start.get(name), getattr(params, name)
        if value is not None and first is not None and value < share * first:
            sentence = f"{sign.what} {value:.3g}, below {share:g} of the start's {first:.3g}"
            sentences.append(f"{sentence}: try {sign.remedy}")
    for name, what in UPDATE.items():
        if not math.isfinite(update.get(name, 0.0)):
            sentences.append(f"{what} is {update[name]}: try {NOT_FINITE}")
    return sentences
