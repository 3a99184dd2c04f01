"""Mean and 2 SD over the folds of the best point, and the chi-square test of right and wrong answers."""

from __future__ import annotations

from math import erfc, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies.crossval import chi_square, over_folds


def frame(*arms: tuple[str, int, list[float]], **values: Any) -> pd.DataFrame:
    """Trials of (arm, point, test accuracies), one a fold; validation as test."""
    rows = [
        {
            "arm": arm, "point": point, "fold": fold, "state": "COMPLETE", "val_accuracy": accuracy,
            "test_accuracy": accuracy, "parameters": 1000 + fold, "widths": {"a": 10 + fold, "b": 3}, **values,
        }
        for arm, point, accuracies in arms
        for fold, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_mean_and_two_sd_are_those_of_the_best_point() -> None:
    (arm,) = over_folds(frame(("x", 0, [0.5, 0.6, 0.7]), ("x", 1, [0.8, 0.9, 0.85]), ("x", 2, [0.99])), 3)
    assert (arm.done, arm.mean) == (3, pytest.approx(0.85))
    assert arm.two_sd == pytest.approx(2 * np.std([0.8, 0.9, 0.85], ddof=1))
    assert arm.parameters == 1001
    assert arm.widths == {"a": 11, "b": 3}


def test_a_trial_that_gave_no_network_is_no_fold() -> None:
    trials = frame(("x", 0, [0.8, 0.9]))
    trials.loc[1, "state"] = "FAIL"
    (arm,) = over_folds(trials, 2)
    assert (arm.done, arm.mean) == (1, pytest.approx(0.8))
    assert np.isnan(arm.two_sd)


def test_chi_square_agrees_with_the_textbooks_formula() -> None:
    arms = over_folds(frame(("x", 0, [0.9, 0.8]), ("y", 0, [0.8, 0.8]), ("z", 0, [0.85, 0.85])), 2)
    against_y, against_z = chi_square(arms, 1000)
    a, b, c, d, n = 1700, 300, 1600, 400, 4000
    statistic = n * (abs(a * d - b * c) - n / 2) ** 2 / ((a + b) * (c + d) * (a + c) * (b + d))
    assert against_y.p == pytest.approx(_p(statistic))
    assert against_y.difference == pytest.approx(0.05)
    assert not against_y.significant
    assert (against_z.p, against_z.difference) == (1.0, pytest.approx(0))
    assert chi_square(over_folds(frame(("x", 0, [0.9]), ("y", 0, [0.8])), 1), 10_000)[0].significant


def _p(statistic: float) -> float:
    """P(chi-square of one degree of freedom > statistic)."""
    return erfc(sqrt(statistic / 2))
