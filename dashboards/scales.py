"""The axes of figures. That of a score is linear, or spaced by the logarithm of the error where trials lie far apart.

With one trial at 47 % and ten between 97 % and 98 %, a linear axis would show the ten as one; on this one 50, 80, 90,
95 and 98 % stand at about equal distances.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards import numbers

APART = 5.0
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class ScoreAxis:
    """Where scores (shares of 1, or R^2) are drawn.

    Attributes:
        task: "classification" (drawn in percent) or "regression".
        least, most: the smallest and largest error (1 - score) to be drawn.
    """

    task: str
    least: float
    most: float

    @classmethod
    def of(cls, scores: Iterable[float], task: str) -> ScoreAxis:
        """The axis that these scores need."""
        errors = [_error(score) for score in scores]
        return cls(task, min(errors, default=1.0), max(errors, default=1.0))

    @property
    def by_error(self) -> bool:
        """Whether it is spaced by the logarithm of the error."""
        return self.most / self.least > APART

    def place(self, scores: Iterable[float]) -> list[float]:
        """Where on the axis the scores stand; better is further."""
        if self.by_error:
            return [round(-math.log10(_error(score)), 9) for score in scores]
        return [round(self._shown(float(score)), 6) for score in scores]

    def layout(self, what: str) -> dict[str, Any]:
        """The axis for plotly; `what` says which score, such as "Test"."""
        name = numbers.score_name(self.task)
        title = (f"{what} {name}" if what else name[:1].upper() + name[1:]) + (
            "" if self.task == "regression" else " (%)"
        )
        if not self.by_error:
            return {"title": {"text": title}}
        powers = range(math.floor(math.log10(self.least)) - 1, math.ceil(math.log10(self.most)) + 1)
        digits = (1, 1.5, 2, 3, 5, 7) if self.most / self.least < 20 else (1, 2, 5)
        errors = [digit * 10.0**power for power in powers for digit in digits]
        errors = [error for error in errors if self.least / 1.3 <= error <= self.most * 1.3]
        return {
            "title": {"text": f"{title}, log error"},
            "tickvals": [-math.log10(error) for error in errors],
            "ticktext": [f"{self._shown(1 - error):.6g}" for error in errors],
        }

    def _shown(self, score: float) -> float:
        return score if self.task == "regression" else 100 * score


def _error(score: float) -> float:
    return max(LEAST_ERROR, 1 - float(score))


def few_epochs(epochs: Sequence[int]) -> dict[str, Any]:
    """An axis of epochs: of a few of them, whole numbers alone."""
    return {"dtick": 1} if max(epochs, default=0) < 12 else {}


def positive_axis(values: Iterable[float]) -> dict[str, Any]:
    """An axis on a log scale, its labels as dense as the range of the values bears: 2 3 4, or 2 5 10, or 10 100.

    Within a factor of 3, where that would leave a label or none, it is linear.
    """
    positive = [float(value) for value in values if value > 0]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    if high < 3 * low:
        whole = all(value.is_integer() for value in positive)
        return {"type": "linear", "tickformat": "~s", **({"dtick": 1} if whole and high - low < 6 else {"nticks": 6})}
    return {"type": "log", "dtick": "D1" if high < 6 * low else "D2" if high < 100 * low else 1, "tickformat": "~s"}
