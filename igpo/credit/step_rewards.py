"""Step rewards: what every search turn of a trajectory was worth. One pure function for each kind.

s_t is the mean log-probability per token of the gold answer, forced after turn t's observation.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Vector = Mapping[str, float]


@dataclass(frozen=True)
class Evidence:
    """What a step reward may look at, of a trajectory with turns 1…T."""

    gold: Sequence[Sequence[float]]  # turns 0…T-1: s_t, then s_t with other observations in place of turn t's
    hits: Sequence[Sequence[str]]  # turns 1…T-1: ids of the passages found
    supporting: Sequence[str]  # ids of the passages that hold the answer
    vectors: Mapping[str, Vector]  # of all these passages


def log_prob_diff(evidence: Evidence) -> list[float]:
    """IGPO's information gain r_t = s_t - s_{t-1} (arXiv:2510.14967v2, Eq. 4)."""
    return [after[0] - before[0] for before, after in itertools.pairwise(evidence.gold)]


def prob_diff(evidence: Evidence) -> list[float]:
    """The same in probabilities, exp(s_t) - exp(s_{t-1}) (arXiv:2510.14967v1)."""
    return [math.exp(after[0]) - math.exp(before[0]) for before, after in itertools.pairwise(evidence.gold)]


def counterfactual(evidence: Evidence) -> list[float]:
    """IG-Search (arXiv:2604.15148): s_t minus its mean over random observations; 0 if there were none."""
    return [own - math.fsum(others) / len(others) if others else 0.0 for own, *others in evidence.gold[1:]]


def tf_idf(texts: Mapping[str, str]) -> dict[str, Vector]:
    """Unit vectors of word counts times ln((1 + n) / (1 + texts with the word)) + 1, by the texts' ids."""
    counts = {name: Counter(re.findall(r"\b\w\w+\b", text.lower())) for name, text in texts.items()}
    documents = Counter(word for words in counts.values() for word in words)
    idf = {word: math.log((1 + len(texts)) / (1 + number)) + 1 for word, number in documents.items()}
    vectors: dict[str, Vector] = {}
    for name, words in counts.items():
        weights = {word: count * idf[word] for word, count in words.items()}
        norm = math.sqrt(math.fsum(weight**2 for weight in weights.values())) or 1.0
        vectors[name] = {word: weight / norm for word, weight in weights.items()}
    return vectors


def similarity(left: Vector, right: Vector) -> float:
    """Cosine of two unit vectors."""
    return math.fsum(weight * right[word] for word, weight in left.items() if word in right)


def gain_less_redundancy(matches: Sequence[Sequence[float]], hits: Sequence[Sequence[str]]) -> list[float]:
    """What each search adds to the best matches so far, minus what it repeats.

    gain_t = mean over supporting passages of max(m_t - max(m_1…m_{t-1}), 0); redundancy_t = share of turn
    t's hits that earlier turns had found. `matches` holds m by turn and supporting passage.
    """
    earlier_hits, rewards = set[str](), []
    best = [0.0] * len(matches[0]) if matches else []
    for turn_matches, turn_hits in zip(matches, hits, strict=True):
        gain = math.fsum(max(new - old, 0.0) for new, old in zip(turn_matches, best, strict=True)) / len(best)
        redundancy = sum(hit in earlier_hits for hit in turn_hits) / max(len(turn_hits), 1)
        rewards.append(gain - redundancy)
        best = [max(pair) for pair in zip(turn_matches, best, strict=True)]
        earlier_hits.update(turn_hits)
    return rewards


def stepsearch(evidence: Evidence) -> list[float]:
    """StepSearch (arXiv:2505.15107): gain minus redundancy; m: the best cosine of a turn's hits with one.

    Its code multiplies the difference by 0.6.
    """
    vectors = evidence.vectors
    matches = [
        [
            max((similarity(vectors[hit], vectors[name]) for hit in hits), default=0.0)
            for name in evidence.supporting
        ]
        for hits in evidence.hits
    ]
    return gain_less_redundancy(matches, evidence.hits)


def none(evidence: Evidence) -> list[float]:
    """0 for every search turn."""
    return [0.0] * len(evidence.hits)


STEP_REWARDS: dict[str, Callable[[Evidence], list[float]]] = {
    "log_prob_diff": log_prob_diff,
    "prob_diff": prob_diff,
    "counterfactual": counterfactual,
    "stepsearch": stepsearch,
    "none": none,
}
