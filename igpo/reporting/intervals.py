"""Bootstrap intervals of means and of paired differences."""

from collections.abc import Sequence

import numpy as np

Values = Sequence[float] | Sequence[Sequence[float]] | np.ndarray  # by question, or by seed and question


def bootstrap_means(values: Values, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) means over questions drawn with replacement, as many as there are.

    Of values (seeds, questions) seeds are drawn with replacement as well, for all questions of a resample.
    """
    data = np.atleast_2d(np.asarray(values, dtype=np.float64))
    seeds, questions = data.shape
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, questions, (resamples, questions))
    if seeds > 1:
        times = generator.multinomial(seeds, [1 / seeds] * seeds, resamples)
        data = times @ data / seeds  # (resamples, questions): means over the seeds drawn
    return np.take_along_axis(data, draws, 1).mean(1)


def interval(values: Values, resamples: int, seed: int) -> dict[str, float]:
    """Mean with the 2.5 and 97.5 percentiles of bootstrap means over the questions, and seeds if several."""
    low, high = np.percentile(bootstrap_means(values, resamples, seed), [2.5, 97.5])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def paired_difference(values: Values, baseline: Values, resamples: int, seed: int) -> dict[str, float]:
    """Mean of values - baseline, by question or (seed, question), with its 95 % interval and a p-like share.

    `p` is twice the share of bootstrap means on the other side of zero, 1 at most: small if the sign
    of the difference doesn't hang on which questions were asked, or on the seeds. One of the two may have a
    single seed, which is then compared with each of the other's.
    """
    differences = np.atleast_2d(values) - np.atleast_2d(baseline)
    means = bootstrap_means(differences, resamples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    p = min(1.0, 2 * float(min((means <= 0).mean(), (means >= 0).mean())))
    return {"mean": float(np.mean(differences)), "low": float(low), "high": float(high), "p": p}
