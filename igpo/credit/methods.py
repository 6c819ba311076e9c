"""Credit assignment: one pure function per method, from a batch's rewards to one advantage per turn.

A method takes a batch of trajectories and the settings of section `advantage`, and returns the normalised
rewards and the advantages, both shaped as the rewards. What makes methods differ is what they compare a value
with: values in one pool (a question's trajectories, its turns of one depth or state, the whole batch) are
normalised together. Turns are told apart by their index, never by a value that happens to be zero. A pool
without spread, or of one value, gives exactly 0: there is nothing to learn from it.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from pipeline import sections

Values = list[list[float]]  # by trajectory and turn
Method = Callable[[Sequence["Rewards"], sections.Advantage], tuple[Values, Values]]
EPSILON = 1e-6
NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Rewards:
    """What a method may look at; every sequence has one entry per turn 1…T."""

    group: str  # the question
    rewards: Sequence[float]  # step rewards of turns 1…T-1, then the outcome
    tokens: Sequence[int]  # numbers of policy tokens
    states: Sequence[Hashable]  # all that the policy had been shown ahead of the turn
    values: Sequence[float | None] = ()  # a critic's; None for a turn without policy tokens


def z_scores(values: Sequence[float], std: str, centred: bool = True) -> list[float]:
    """(value - mean) / (deviation + 1e-6), deviation population or sample; std "none": value - mean.

    Without `centred` no mean is subtracted, and a single value has the deviation 1 (DR-Venus'
    `info_gain_advantage.py`). Else all 0 if the variance is at most 1e-12 or, as sample variance, undefined.
    """
    if not centred and (std == "none" or len(values) == 1):
        return list(values)
    degrees = len(values) - (std == "sample")
    if degrees < 1:
        return [0.0] * len(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / degrees
    if variance <= NO_SPREAD:
        return [0.0] * len(values)
    scale = 1.0 if std == "none" else math.sqrt(variance) + EPSILON
    return [(value - mean * centred) / scale for value in values]


def normalise(values: Values, pools: Sequence[Sequence[Hashable]], std: str, centred: bool = True) -> Values:
    """z-scores of values among those with the same label in `pools`, which is shaped as they are."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for row, labels in zip(values, pools, strict=True):
        for value, label in zip(row, labels, strict=True):
            members[label].append(value)
    z_by_label = {label: iter(z_scores(pool, std, centred)) for label, pool in members.items()}
    return [[next(z_by_label[label]) for label in labels] for labels in pools]


def discounted(values: Sequence[float], gamma: float) -> list[float]:
    """Reward to go: R_t = values_t + gamma R_{t+1}."""
    backwards = itertools.accumulate(reversed(values), lambda later, value: value + gamma * later)
    return list(backwards)[::-1]


def outcome_z(batch: Sequence[Rewards], std: str) -> list[float]:
    """Every trajectory's outcome, normalised among its group's."""
    columns = normalise([[t.rewards[-1]] for t in batch], [[t.group] for t in batch], std)
    return [value for (value,) in columns]


def outcome_returns(batch: Sequence[Rewards], gamma: float) -> Values:
    """The outcome as seen from every turn, discounted once per turn in between."""
    return [discounted([0.0] * (len(t.rewards) - 1) + [t.rewards[-1]], gamma) for t in batch]


def reward_z(batch: Sequence[Rewards], normalisation: str, scope: str, std: str) -> Values:
    """Rewards, normalised within their group: step rewards and outcomes together (joint) or apart.

    Apart, "separate" gives z-scores of both; "raw_ig" only divides step rewards by their deviation. Scope
    "group_turn" compares rewards at the same turn index only; outcomes apart stay one pool.
    """

    def label(trajectory: Rewards, turn: int) -> Hashable:
        outcome = turn == len(trajectory.rewards) - 1 and normalisation != "joint"
        return trajectory.group, outcome, None if outcome or scope == "group" else turn

    pools = [[label(t, turn) for turn in range(len(t.rewards))] for t in batch]
    z = normalise([list(t.rewards) for t in batch], pools, std)
    if normalisation == "raw_ig":
        raw = normalise([list(t.rewards) for t in batch], pools, std, centred=False)
        z = [[*gains[:-1], outcome[-1]] for gains, outcome in zip(raw, z, strict=True)]
    return z


def every_turn(batch: Sequence[Rewards], values: Sequence[float]) -> tuple[Values, Values]:
    """One value per trajectory: its last turn's normalised reward, and the advantage of all its turns."""
    z = [[0.0] * (len(t.rewards) - 1) + [value] for t, value in zip(batch, values, strict=True)]
    return z, [[value] * len(t.rewards) for t, value in zip(batch, values, strict=True)]


def whiten(values: Values, batch: Sequence[Rewards]) -> Values:
    """(value - mean) / sqrt(variance + 1e-8) over all policy tokens of the batch, with sample variance."""
    pairs = [pair for row, t in zip(values, batch, strict=True) for pair in zip(row, t.tokens, strict=True)]
    total = sum(count for _, count in pairs)
    if total < 2:
        return [[0.0] * len(row) for row in values]
    mean = math.fsum(value * count for value, count in pairs) / total
    variance = math.fsum(count * (value - mean) ** 2 for value, count in pairs) / (total - 1)
    if variance <= NO_SPREAD:
        return [[0.0] * len(row) for row in values]
    return [[(value - mean) / math.sqrt(variance + 1e-8) for value in row] for row in values]


def igpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """IGPO (arXiv:2510.14967v2, Eq. 5 and 6): R_t = sum_{k=t..T} gamma^(k-t) w_k z_k.

    Unlike in the released code the weights w (`gain_weight`, `outcome_weight`) act on z: put on the rewards,
    separate normalisation would cancel them. With "raw_ig" (DR-Venus, arXiv:2604.19859) nothing is
    accumulated: R_t = w_t z_t + w_T z_T for t < T, R_T = w_T z_T.
    """
    z = reward_z(batch, params.normalisation, params.scope, params.std)
    weights = (params.gain_weight, params.outcome_weight)
    # + 0.0 makes a zero of either sign the positive one
    terms = [[weights[turn == len(row) - 1] * v + 0.0 for turn, v in enumerate(row)] for row in z]
    if params.normalisation == "raw_ig":
        return terms, [[*(gain + row[-1] for gain in row[:-1]), row[-1]] for row in terms]
    return terms, [discounted(row, params.gamma) for row in terms]


def grpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """GRPO (arXiv:2402.03300): the outcome's z-score, for every turn; step rewards don't count."""
    return every_turn(batch, outcome_z(batch, params.std))


def dr_grpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """Dr. GRPO (arXiv:2503.20783): the outcome minus its group's mean, for every turn."""
    return every_turn(batch, outcome_z(batch, "none"))


def rloo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """RLOO (arXiv:2402.14740): the outcome minus the mean of the others, = n / (n - 1) (outcome - mean)."""
    sizes = Counter(t.group for t in batch)
    scales = [sizes[t.group] / max(sizes[t.group] - 1, 1) for t in batch]
    deviations = outcome_z(batch, "none")
    return every_turn(batch, [scale * value for scale, value in zip(scales, deviations, strict=True)])


def reinforce_pp(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """REINFORCE++ (arXiv:2501.03262): the outcome's return, whitened over the tokens of the batch."""
    advantages = whiten(outcome_returns(batch, params.gamma), batch)
    return advantages, advantages


def reinforce_pp_baseline(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """REINFORCE++ with a baseline: outcome minus its group's mean, whitened over the tokens of the batch."""
    advantages = whiten(every_turn(batch, outcome_z(batch, "none"))[1], batch)
    return advantages, advantages


def gigpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """GiGPO (arXiv:2505.10978): A = outcome's advantage + omega * step advantage.

    The step advantage compares the returns of turns that a question's trajectories took in the same state:
    after having been shown the same. `std` "none" is its mean_norm, "sample" its mean_std_norm.
    """
    pools = [[(t.group, state) for state in t.states] for t in batch]
    steps = normalise(outcome_returns(batch, params.gamma), pools, params.std)
    episodes = outcome_z(batch, params.std)
    return steps, [
        [episode + params.omega * step for step in row] for episode, row in zip(episodes, steps, strict=True)
    ]


def gtpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """GTPO (arXiv:2511.14846): returns of the raw turn rewards, normalised within the group (and turn).

    IGPO normalises first and accumulates then.
    """
    returns = [discounted(t.rewards, params.gamma) for t in batch]
    by_turn = params.scope == "group_turn"
    pools = [[(t.group, turn * by_turn) for turn in range(len(t.rewards))] for t in batch]
    z = normalise(returns, pools, params.std)
    return z, z


def a2tgpo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """A2TGPO (arXiv:2605.06200): gains compared by turn, their sum over n search turns rescaled.

    A_t = alpha / sqrt(n - t + 1) sum_{k=t..n} gamma^(k-t) z_k + z_outcome; the answer has z_outcome alone.
    """
    z = reward_z(batch, "separate", "group_turn", params.std)
    advantages = []
    for *gains, outcome in z:
        sums = discounted(gains, params.gamma)
        ahead = range(len(gains), 0, -1)  # search turns from this one on
        terms = [params.alpha * value / math.sqrt(n) for value, n in zip(sums, ahead, strict=True)]
        advantages.append([*(value + outcome for value in terms), outcome])
    return z, advantages


def gae(rewards: Sequence[float], values: Sequence[float | None], gamma: float, lam: float) -> list[float]:
    """Generalised advantage estimates over turns (arXiv:1506.02438).

    delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lam A_{t+1}. Over a turn without policy
    tokens, which a critic does not value, both are carried: V = r + gamma V', A = gamma A'.
    """
    value = advantage = 0.0
    estimates = []
    for reward, critic_value in reversed(list(zip(rewards, values, strict=True))):
        ahead = reward + gamma * value
        advantage *= gamma if critic_value is None else gamma * lam
        if critic_value is not None:
            advantage += ahead - critic_value
        value = ahead if critic_value is None else critic_value
        estimates.append(advantage)
    return estimates[::-1]


def ppo(batch: Sequence[Rewards], params: sections.Advantage) -> tuple[Values, Values]:
    """PPO with a critic (arXiv:1707.06347): GAE over turns, whitened over the tokens of the batch."""
    estimates = [gae(t.rewards, t.values, params.gamma, params.lam) for t in batch]
    return estimates, whiten(estimates, batch)


METHODS: dict[str, Method] = {
    "igpo": igpo,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "gigpo": gigpo,
    "gtpo": gtpo,
    "a2tgpo": a2tgpo,
    "ppo": ppo,
}
WITH_CRITIC = ("ppo",)  # those that need a critic's values
