"""Answer metrics on strings: exact match and F1, as IGPO scores them and as SQuAD and Search-R1 do.

IGPO's released code compares sets of words and keeps articles; SQuAD compares multisets without them.
Both differ from the published code in three points. Text of which their rules leave nothing ("!!!", SQuAD's
"The") is compared as it stands: the right answer to such a gold counts, an empty one does not. Each character
of Chinese, Japanese, Thai, Lao, Burmese and Khmer is a word, since nothing parts the words of these scripts.
Texts that look alike are equal: composed and decomposed letters, full-width digits, marks that show nothing.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

from pipeline.characters import as_seen, spaced

_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def _words(text: str, plain: str) -> str:
    """What the rules leave of a text, `plain`, or the text itself if that is nothing, with single spaces."""
    return " ".join(spaced(plain).split() or spaced(text).split())


def normalise(text: str) -> str:
    """Lower-case, ASCII punctuation to spaces, white space collapsed; articles are kept."""
    text = as_seen(text).lower()
    return _words(text, text.translate(_PUNCTUATION))


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
    """1.0 if the normalised answer equals a normalised gold, else 0.0; so without an answer."""
    return float(answer is not None and normalise(answer) in {normalise(gold) for gold in golds})


def squad_normalise(text: str) -> str:
    """Lower-case, ASCII punctuation deleted, then the words a, an, the; white space collapsed."""
    text = as_seen(text).lower()
    return _words(text, _ARTICLES.sub(" ", text.translate(_NO_PUNCTUATION)))


def squad_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Best F1 over the golds, on multisets of SQuAD-normalised words; no answer or nothing in common: 0."""
    if answer is None:
        return 0.0
    words = squad_normalise(answer).split()
    return max((_multiset_f1(words, squad_normalise(gold).split()) for gold in golds), default=0.0)


def _multiset_f1(words: list[str], gold: list[str]) -> float:
    common = (Counter(words) & Counter(gold)).total()
    return 2 * common / (len(words) + len(gold)) if common else 0.0


def squad_exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """1.0 if the SQuAD-normalised answer equals a gold that is normalised so, else 0.0."""
    return float(answer is not None and squad_normalise(answer) in map(squad_normalise, golds))


def outcome(answer: str | None, golds: Sequence[str], format_penalty: float) -> float:
    """Reward of the last turn: F1 of a well-formed trajectory, else the penalty (paper Eq. 2)."""
    return format_penalty if answer is None else f1(answer, golds)
