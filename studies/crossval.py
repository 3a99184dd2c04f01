"""Cross-validation as in Dynamic auto-sizing, Table II: mean and 2 SD over folds, chi-square tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from studies.compare import finished

LEVEL = 1e-5
"""Below which p a difference is called significant, as in the paper."""


@dataclass(frozen=True)
class Folds:
    """One arm over the folds of its best point: the one of highest mean validation accuracy.

    Attributes:
        arm: Its name.
        done: Folds that gave a network.
        mean: Of the test accuracy at each fold's best validation epoch; a fraction.
        two_sd: Two standard deviations of it (of a sample); nan for one fold.
        parameters: Mean parameters.
        widths: Layer -> mean width.
        accuracies: Fold -> its test accuracy, of which `mean` is the mean; a fraction.
    """

    arm: str
    done: int
    mean: float
    two_sd: float
    parameters: float
    widths: dict[str, float]
    accuracies: dict[int, float]


@dataclass(frozen=True)
class Test:
    """Two arms on the same test rows: chi-square of right and wrong answers, all folds together.

    Attributes:
        arm, other: Which.
        difference: Of mean accuracies, arm less other; a fraction.
        p: Of the test, with Yates's correction. It takes rows for all that varies; how trainings do, `by_fold` tells.
        by_fold: The difference in each fold that both have.
    """

    arm: str
    other: str
    difference: float
    p: float
    by_fold: tuple[float, ...]

    @property
    def significant(self) -> bool:
        """Whether p is below the paper's level."""
        return self.p < LEVEL


def over_folds(trials: pd.DataFrame, folds: int) -> list[Folds]:
    """The arms of an evaluation over their folds, in the frame's order; without those that gave no network.

    Args:
        trials: One row a trial (`studies.query.trials`), stages left out.
        folds: How many there are; points with all of them come before others.
    """
    found = []
    for arm, rows in finished(trials).groupby("arm", sort=False):
        points = [point for _, point in rows.groupby("point")]
        whole = [point for point in points if len(point) == folds] or points
        best = max(whole, key=lambda point: float(point["val_accuracy"].mean()))
        accuracy = best["test_accuracy"].to_numpy(dtype=np.float64)
        layers = best["widths"].iloc[0]
        found.append(
            Folds(
                arm=str(arm),
                done=len(best),
                mean=float(accuracy.mean()),
                two_sd=2 * float(accuracy.std(ddof=1)) if len(accuracy) > 1 else math.nan,
                parameters=float(best["parameters"].astype(float).mean()),
                widths={layer: float(np.mean([widths[layer] for widths in best["widths"]])) for layer in layers},
                accuracies=dict(zip(best["fold"].astype(int), accuracy.tolist(), strict=True)),
            )
        )
    return found


def chi_square(arms: list[Folds], rows: int) -> list[Test]:
    """The first arm against each other one.

    Args:
        arms: What `over_folds` gave, of a classification.
        rows: Test rows of one fold.
    """
    tests = []
    for other in arms[1:]:
        table = []
        for arm in (arms[0], other):
            total = rows * arm.done
            right = round(arm.mean * total)
            table.append([right, total - right])
        same = table[0][0] * table[1][1] == table[0][1] * table[1][0]
        p = 1.0 if same else float(stats.chi2_contingency(np.array(table)).pvalue)
        both = sorted(arms[0].accuracies.keys() & other.accuracies.keys())
        by_fold = tuple(arms[0].accuracies[fold] - other.accuracies[fold] for fold in both)
        tests.append(Test(arms[0].arm, other.arm, arms[0].mean - other.mean, p, by_fold))
    return tests
