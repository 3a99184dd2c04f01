"""Statistics of trials' accuracies: the expected best of n, an interval for medians, a test of spreads."""

from __future__ import annotations

import math
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
    values = np.asarray(chosen_first, dtype=np.float64)
    count = len(values)
    result = np.empty(count)
    for n in range(1, count + 1):
        weights = [math.comb(count - rank, n - 1) / math.comb(count, n) for rank in range(1, count + 1)]
        result[n - 1] = np.dot(weights, values)
    return result


def median_interval(a: Floats, b: Floats, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of median(a) - median(b), each arm resampled; the seed makes it repeatable."""
    rng = np.random.default_rng(seed)
    draws = [np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1) for values in (a, b)]
    low, high = np.percentile(draws[0] - draws[1], [2.5, 97.5])
    return float(low), float(high)


def spread_test(samples: Sequence[Floats]) -> float | None:
    """p of the Brown-Forsythe test that the spreads are equal; None under two samples or where nothing varies.

    Samples under three values are left out: the distances of two from their median are the same, as if sure.
    """
    samples = [sample for sample in samples if len(sample) > 2]
    if len(samples) < 2 or not any(np.ptp(np.abs(s - np.median(s))) > 0 for s in samples):
        return None
    return float(stats.levene(*samples, center="median").pvalue)
