"""An Optuna sampler that looks for sizes: it asks for the knob whose network is likeliest to end just under a budget.

Size falls with the knob (rank correlation -0.97 was measured), so its logarithm over the logarithm of the knob is
modelled as a falling function with noise: a Gaussian process around a line, whose draws are made monotone. Accuracy
takes no part. Each trial's knob is the one that would most probably give a network for a budget that has none yet, and
that no trial in flight is likely to give. Without a budget, or when each has its network, the widest gap between the
sizes found is filled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

Floats = npt.NDArray[np.float64]

SIZE = "final_parameters"
"""The user attribute of a trial that says its size: of its network after the last epoch."""
WITHIN = 0.1
"""A network is one for a budget where it is at most so much smaller, as a share."""
_SLOPE, _SLOPE_SPREAD = -0.7, 0.35
_LENGTH = math.log(10.0)
_AMPLITUDES, _NOISES = (0.15, 0.4, 0.9), (0.02, 0.06, 0.15)
_DRAWS, _PLACES = 512, 241


@dataclass(frozen=True)
class Found:
    """An ended trial: log of the knob, log of the size."""

    knob: float
    size: float


class SizeModel:
    """The log of the size over the log of the knob, as far as some trials say.

    Args:
        found: the trials, at least one.
    """

    def __init__(self, found: Sequence[Found]) -> None:
        self.knobs = np.array([each.knob for each in found])
        self.sizes = np.array([each.size for each in found])
        self._centre, self._mean = float(self.knobs.mean()), float(self.sizes.mean())
        scales = [(a, n) for a in _AMPLITUDES for n in _NOISES]
        self.amplitude, self.noise = max(scales, key=self._likelihood) if len(found) > 2 else (0.4, 0.06)

    def draws(self, at: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Falling functions that fit the trials: (count, places), at rising places."""
        inner, across, outer = self._kernel(self.knobs, self.knobs), self._kernel(at, self.knobs), self._kernel(at, at)
        solved = np.linalg.solve(inner + self._errors(self.noise), across.T)
        mean = self._line(at) + (self.sizes - self._line(self.knobs)) @ solved
        covariance = outer - across @ solved
        covariance = (covariance + covariance.T) / 2 + 1e-8 * np.eye(len(at))
        values, vectors = np.linalg.eigh(covariance)
        each = mean + rng.standard_normal((count, len(at))) @ (vectors * np.sqrt(np.clip(values, 0, None))).T
        falling = np.minimum.accumulate(each, axis=1)
        return (falling + np.maximum.accumulate(each[:, ::-1], axis=1)[:, ::-1]) / 2

    def _line(self, at: Floats) -> Floats:
        return self._mean + _SLOPE * (at - self._centre)

    def _kernel(self, one: Floats, other: Floats, amplitude: float | None = None) -> Floats:
        """Covariance: of the line's height and slope, and of what leaves the line smoothly."""
        a, b = one[:, None] - self._centre, other[None, :] - self._centre
        smooth = np.exp(-0.5 * ((a - b) / _LENGTH) ** 2)
        return 9.0 + _SLOPE_SPREAD**2 * a * b + (amplitude or self.amplitude) ** 2 * smooth

    def _errors(self, noise: float) -> Floats:
        return noise**2 * np.eye(len(self.knobs))

    def _likelihood(self, scales: tuple[float, float]) -> float:
        amplitude, noise = scales
        matrix = self._kernel(self.knobs, self.knobs, amplitude) + self._errors(noise)
        off = self.sizes - self._line(self.knobs)
        return float(-0.5 * off @ np.linalg.solve(matrix, off) - 0.5 * np.linalg.slogdet(matrix)[1])


class SizeSampler(BaseSampler):
    """Samples one positive number on a log scale, the knob, so that sizes come to lie just under budgets.

    Numbers of other kinds, such as a baseline's widths, are drawn at random.

    Args:
        budgets: sizes, each of which is to get a network at most ``within`` smaller, and none larger; may be empty.
        size: the user attribute in which a trial's size stands when it has ended; what has none is not tried again.
        within: a share.
        seed: of all that is drawn; None for another one each time.

    Source: monotone sizes as measured with ShrinkNets; the choice is a batch form of the probability of improvement.
    """

    def __init__(
        self,
        budgets: Sequence[float] = (),
        *,
        size: str = SIZE,
        within: float = WITHIN,
        seed: int | None = None,
    ) -> None:
        self.budgets = sorted(float(budget) for budget in budgets)
        self.size = size
        self.within = within
        self._random = RandomSampler(seed)
        self._rng = np.random.default_rng(seed)

    def reseed_rng(self) -> None:
        self._random.reseed_rng()
        self._rng = np.random.default_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        bounds = param_distribution
        if not (isinstance(bounds, FloatDistribution) and bounds.log and bounds.low < bounds.high):
            return self._random.sample_independent(study, trial, param_name, bounds)
        found: list[Found] = []
        flying: list[float] = []
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or param_name not in other.params:
                continue
            knob, size = math.log(other.params[param_name]), other.user_attrs.get(self.size)
            if other.state == TrialState.COMPLETE and isinstance(size, int | float) and size > 0:
                found.append(Found(knob, math.log(size)))
            else:  # it runs, or has failed: be it as it may, it is not tried again
                flying.append(knob)
        return min(max(self.next_knob(found, flying, bounds.low, bounds.high), bounds.low), bounds.high)

    def next_knob(self, found: Sequence[Found], flying: Sequence[float], low: float, high: float) -> float:
        """The knob to try next.

        Args:
            found: what has ended.
            flying: logs of the knobs that are being tried, or were in vain.
            low, high: the range.
        """
        least, most = math.log(low), math.log(high)
        if not found:
            share = _halved(len(flying)) + self._rng.uniform(-1, 1) / 16
            return math.exp(least + (most - least) * min(max(share, 0.0), 1.0))
        at = np.linspace(least, most, _PLACES)
        model = SizeModel(found)
        draws = model.draws(at, _DRAWS, self._rng)
        seen = draws + model.noise * self._rng.standard_normal(draws.shape)
        tried = [int(np.abs(at - knob).argmin()) for knob in flying]
        wanted = self._wanted(found, draws, at, tried)
        gain, distance = np.zeros(len(at)), np.full(len(at), np.inf)
        for lower, upper in wanted:
            hits = (seen >= lower) & (seen <= upper)
            given = hits[:, tried].any(axis=1, keepdims=True)
            gain += (hits & ~given).mean(axis=0)
            distance = np.minimum(distance, np.abs(np.median(draws, axis=0) - (lower + upper) / 2))
        # What one seed has given at a knob it gives again.
        gain[[int(np.abs(at - each.knob).argmin()) for each in found]] = 0.0
        if gain.max() < 2 / _DRAWS:  # nothing is likely to hit: what comes nearest
            away = np.min([np.abs(at - at[place]) for place in tried], axis=0) if tried else np.zeros(len(at))
            return math.exp(at[int((distance - 0.1 * away).argmin())])
        best = np.flatnonzero(gain >= 0.98 * gain.max())
        return math.exp(at[int(best[len(best) // 2])])

    def unmet(self, found: Sequence[Found]) -> list[float]:
        """The budgets that have no network yet."""
        sizes = [math.exp(each.size) for each in found]
        return [b for b in self.budgets if not any((1 - self.within) * b <= size <= b * (1 + 1e-9) for size in sizes)]

    def _wanted(
        self, found: Sequence[Found], draws: Floats, at: Floats, tried: Sequence[int]
    ) -> list[tuple[float, float]]:
        """Logs of sizes, from and to, that a network is wanted between."""
        if unmet := self.unmet(found):
            return [(math.log((1 - self.within) * budget), math.log(budget)) for budget in unmet]
        middle = np.median(draws, axis=0)
        sizes = sorted([each.size for each in found] + [float(middle[place]) for place in tried])
        if len(sizes) < 2:
            near = abs(sizes[0] - middle[0]) < abs(sizes[0] - middle[-1]) if sizes else False
            end = float(middle[-1] if near else middle[0])
            return [(end - 0.1, end + 0.1)]
        ends = [float(middle[-1]), *sizes, float(middle[0])]
        gaps = [(upper - lower, lower, upper) for lower, upper in itertools.pairwise(ends)]
        width, lower, upper = max(gaps)
        return [(lower + width / 3, upper - width / 3)]


def _halved(number: int) -> float:
    """The number-th of 1/2, 1/4, 3/4, 1/8, 5/8, ...: where to begin while nothing is known."""
    share, step = 0.0, 0.5
    number += 1
    while number:
        share += step * (number % 2)
        number //= 2
        step /= 2
    return share
