"""Answer metrics on strings: exact match and F1 as IGPO scores them (algorithms.md 1.10)."""

import string
from collections.abc import Sequence

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


def normalise(text: str) -> str:
    """Lower-case, ASCII punctuation to spaces, white space collapsed; articles are kept."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def f1(answer: str | None, golds: Sequence[str]) -> float:
    """Best F1 over the golds, on sets of normalised words: a repeated word counts once; no answer: 0."""
    if answer is None:
        return 0.0
    return max(
        (_f1(set(normalise(answer).split()), set(normalise(gold).split())) for gold in golds), default=0.0
    )


def _f1(words: set[str], gold: set[str]) -> float:
    common = len(words & gold)
    return 2 * common / (len(words) + len(gold)) if common else 0.0


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """1.0 where the normalised answer equals a normalised gold, else 0.0; so without an answer."""
    return float(answer is not None and normalise(answer) in {normalise(gold) for gold in golds})


def outcome(answer: str | None, golds: Sequence[str], format_penalty: float) -> float:
    """Reward of the last turn: F1 of a well-formed trajectory, else the penalty (paper Eq. 2)."""
    return format_penalty if answer is None else f1(answer, golds)
