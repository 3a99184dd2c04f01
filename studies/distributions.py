"""Statistics of trials' accuracies: the expected best of n, an interval for medians, a test of spreads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 10_000
Floats = npt.NDArray[np.float64]


def expected_best(chosen_first: Sequence[float] | Floats) -> Floats:
    """Expected test accuracy of the trial that validation chooses among n of N trials, for n = 1..N.

    The n trials are drawn without replacement, so this is exact: the trial of rank i (from 1) is chosen when it is
    drawn and none better is, with probability C(N - i, n - 1) / C(N, n) (after Dodge et al. 2019, "Show Your Work").

    Args:
        chosen_first: N test accuracies in the order of validation accuracy, best first.
    """
    count, result = len(chosen_first), np.zeros(len(chosen_first))
    n = np.arange(1, count + 1)
    chance = n / max(count, 1)
    for rank, value in enumerate(chosen_first, start=1):
        result += chance * value
        chance = chance * np.maximum(0, count - rank - n + 1) / max(count - rank, 1)
    return result


def median_interval(a: Floats, b: Floats, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of median(a) - median(b), each arm resampled; the seed makes it repeatable.

    Args:
        a, b: sorted values.
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    draws = [_medians(values, rng) for values in (a, b)]
    low, high = np.percentile(draws[0] - draws[1], [2.5, 97.5])
    return float(low), float(high)


def _medians(values: Floats, rng: np.random.Generator) -> Floats:
    """Medians of resamples of sorted values.

    A resample is n uniform numbers u, each the value at floor(n u), so that its median needs their middle ones alone:
    the k-th smallest of n is Beta(k, n - k + 1) distributed, and the next one the smallest of n - k above it.
    """
    count = len(values)
    k = (count + 1) // 2
    middle = rng.beta(k, count - k + 1, RESAMPLES)
    chosen: Floats = values[np.minimum((count * middle).astype(int), count - 1)]
    if count % 2:
        return chosen
    above = middle + (1 - middle) * (1 - (1 - rng.random(RESAMPLES)) ** (1 / (count - k)))
    following: Floats = values[np.minimum((count * above).astype(int), count - 1)]
    return (chosen + following) / 2


def spread_test(samples: Sequence[Floats]) -> float | None:
    """p of the Brown-Forsythe test that the spreads are equal; None under two samples or where nothing varies.

    Samples under three values are left out: the distances of two from their median are the same, as if sure.
    """
    samples = [sample for sample in samples if len(sample) > 2]
    if len(samples) < 2 or not any(np.ptp(np.abs(s - np.median(s))) > 0 for s in samples):
        return None
    return float(stats.levene(*samples, center="median").pvalue)
