"""The sampler that looks for sizes: Optuna's own tests of samplers, and how soon budgets have their networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import median

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase

from studies.size_sampler import SIZE, SizeSampler

LOW, HIGH = 1e-5, 1e-2
# Units that 8 epochs of ShrinkNets leave of 1,000 on Fashion-MNIST.
KNOBS, UNITS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2), (950, 860, 575, 225, 73, 34, 19)
BUDGETS = (20_000, 40_000, 80_000, 160_000, 400_000)


class TestAsOptunaHasIt(BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own: what it suggests lies in its distribution, whatever the objective, and its kinds."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: SizeSampler([1000.0], seed=0)


def size_at(knob: float, rng: np.random.Generator, noise: float = 0.05) -> int:
    units = np.exp(np.interp(math.log(knob), np.log(KNOBS), np.log(UNITS)) + noise * rng.standard_normal())
    return max(1, round(float(units))) * 795 + 10


def search(sampler: SizeSampler, trials: int, seed: int = 0, at_once: int = 1) -> list[int]:
    """Sizes in the order of the trials, of which so many are always in flight."""
    study, rng = optuna.create_study(sampler=sampler), np.random.default_rng(100 + seed)
    sizes: list[int] = []
    flying: list[optuna.Trial] = []
    while len(sizes) < trials:
        while len(flying) < at_once:
            flying.append(study.ask())
            flying[-1].suggest_float("lambda", LOW, HIGH, log=True)
        trial = flying.pop(0)
        sizes.append(size_at(trial.params["lambda"], rng))
        trial.set_user_attr(SIZE, sizes[-1])
        study.tell(trial, 0.5)
    return sizes


def needed(sizes: list[int], budget: float) -> int:
    return next((at for at, size in enumerate(sizes, 1) if 0.9 * budget <= size <= budget), 99)


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_has_its_network_in_five_trials(budget: int) -> None:
    assert median(needed(search(SizeSampler([budget], seed=seed), 8, seed), budget) for seed in range(7)) <= 5


def test_several_budgets_share_their_trials() -> None:
    """Fewer than five for each, two of them in flight at a time."""
    counts = []
    for seed in range(5):
        sizes = search(SizeSampler(BUDGETS, seed=seed), 25, seed, at_once=2)
        counts.append(max(needed(sizes, budget) for budget in BUDGETS))
    assert median(counts) <= 20


def test_trials_in_flight_are_not_repeated() -> None:
    sampler = SizeSampler([80_000], seed=0)
    study = optuna.create_study(sampler=sampler)
    knobs = []
    for at in range(12):
        trial = study.ask()
        knobs.append(trial.suggest_float("lambda", LOW, HIGH, log=True))
        if at < 4:
            trial.set_user_attr(SIZE, size_at(knobs[-1], np.random.default_rng(at)))
            study.tell(trial, 0.5)
    assert len({round(math.log10(knob), 2) for knob in knobs}) == 12


def test_without_a_budget_the_curve_is_even() -> None:
    """Its widest gap in log size is less than twice that of a curve that is perfectly even; random draws' is more."""

    def widest(sizes: list[int]) -> float:
        logs = np.sort(np.log(sizes))
        return float(np.diff(logs).max()) / (math.log(950 / 19) / (len(sizes) - 1))

    ours = [widest(search(SizeSampler(seed=seed), 12, seed)) for seed in range(5)]
    random = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        random.append(widest([size_at(10 ** rng.uniform(-5, -2), rng) for _ in range(12)]))
    assert median(ours) < 2 < median(random)


def test_the_same_seed_asks_the_same() -> None:
    runs = [search(SizeSampler([40_000], seed=seed), 6) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_a_knob_that_gave_no_network_is_not_tried_again() -> None:
    study = optuna.create_study(sampler=SizeSampler([40_000], seed=0))
    knobs = []
    for at in range(8):
        trial = study.ask()
        knobs.append(trial.suggest_float("lambda", LOW, HIGH, log=True))
        if at == 2:
            trial.set_user_attr(SIZE, size_at(knobs[-1], np.random.default_rng(0)))
        study.tell(trial, 0.5, state=optuna.trial.TrialState.COMPLETE) if at == 2 else study.tell(
            trial, state=optuna.trial.TrialState.FAIL
        )
    assert len({round(math.log10(knob), 2) for knob in knobs}) == 8


def test_a_knob_is_not_asked_again_whose_size_is_known() -> None:
    """What one seed gave it gives again: sizes scatter from knob to knob, not from one try to the next."""
    sampler, repeated = SizeSampler([10_000], seed=0), 0
    for seed in range(10):
        study, asked = optuna.create_study(sampler=sampler), set[int]()
        for _ in range(10):
            trial = study.ask()
            knob = trial.suggest_float("lambda", LOW, 10 * HIGH, log=True)
            place = round(math.log(knob) * 1000)
            repeated += place in asked
            asked.add(place)
            scatter = np.random.default_rng([seed, abs(place)]).standard_normal()
            trial.set_user_attr(SIZE, 800 * max(13, round(13 * (knob / 3e-2) ** -0.7 * math.exp(0.06 * scatter))))
            study.tell(trial, 0.5)
    assert repeated == 0
