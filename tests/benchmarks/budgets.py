"""Networks under budgets: how many trials a search for sizes needs, and what its networks are worth.

All in this process, by ``sizer.fit``: what is compared is what is trained, not how trials are handed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import numpy as np
import optuna
import torch

import sizer
import studies
from sizer import Epoch, best_epoch, networks
from sizer.methods import create
from studies.size_sampler import SIZE, WITHIN, SizeSampler
from tests.benchmarks.images import first
from tests.benchmarks.row import Side, seeded

Finder = Callable[[str, int, int], "Searched"]
"""data, budget, seed -> trials under a budget."""
WIDTHS, BATCH, EPOCHS, IMAGES, OTHERS = (300, 100), 128, 8, 12_000, 10_000
LOW, HIGH = 1e-4, 1e-1
BUDGETS = (10_000, 20_000, 50_000, 100_000, 200_000)
MOST = 20
"""Trials of a search at most; of fixed widths, always."""

Sampler = Callable[[int, int], optuna.samplers.BaseSampler]
"""budget, seed -> what draws knobs."""
SAMPLERS: tuple[Sampler, ...] = (
    lambda budget, seed: SizeSampler([budget], seed=seed),
    lambda budget, seed: optuna.samplers.RandomSampler(seed),
    lambda budget, seed: optuna.samplers.TPESampler(seed=seed),
)


@dataclass(frozen=True)
class Searched:
    """A search under a budget.

    Attributes:
        trials: epochs of each, in turn.
        hit: whether the last one ended at most a tenth under the budget.
    """

    trials: Sequence[Sequence[Epoch]]
    hit: bool

    @property
    def flops(self) -> int:
        """Of all training steps."""
        return sum(epochs[-1].training_flops for epochs in self.trials)

    def accuracy(self, budget: int) -> float:
        """Percent of test images of the network under the budget that validation chooses; NaN where there is none."""
        fits = [epoch for epochs in self.trials for epoch in epochs if epoch.parameters <= budget]
        return 100 * best_epoch(fits).test_accuracy if fits else math.nan


@cache
def trained(name: str, seed: int, knob: float | None, widths: tuple[int, ...], epochs: int = EPOCHS) -> list[Epoch]:
    """A trial: sized under a knob, or of fixed widths."""
    data = first(name, IMAGES, OTHERS)
    torch.manual_seed(seed)
    module = networks.build("mlp", data.input_shape, data.outputs, list(widths))
    method = create("fixed") if knob is None else create("shrinknets", knob)
    return sizer.fit(module, data, method, epochs=epochs, batch_size=BATCH, seed=seed).history


@cache
def searched(name: str, budget: int, sampler: Sampler, seed: int) -> Searched:
    """Trials until one ends at most a tenth under the budget; all train with one seed, as such a sweep's do."""
    study = optuna.create_study(direction="minimize", sampler=sampler(budget, seed))
    trials: list[list[Epoch]] = []
    while len(trials) < MOST:
        trial = study.ask()
        trials.append(trained(name, seed, trial.suggest_float("lambda", LOW, HIGH, log=True), WIDTHS))
        size = trials[-1][-1].parameters
        if (1 - WITHIN) * budget <= size <= budget:
            return Searched(trials, hit=True)
        trial.set_user_attr(SIZE, size)
        study.tell(trial, abs(math.log(size / budget)))
    return Searched(trials, hit=False)


def looked(name: str, budget: int, seed: int) -> Searched:
    """The search by our sampler."""
    return searched(name, budget, SAMPLERS[0], seed)


@cache
def sized(name: str, budget: int, seed: int) -> Searched:
    """What ``studies.size`` does, its range left as it is."""
    data = first(name, IMAGES, OTHERS)
    torch.manual_seed(seed)
    module = networks.build("mlp", data.input_shape, data.outputs, list(WIDTHS))
    found = studies.size(module, data, max_params=budget, epochs=EPOCHS, batch_size=BATCH, seed=100 * seed)
    return Searched([each.epochs for each in found.trials], hit=True)


@cache
def fixed(name: str, budget: int, seed: int, epochs: int = EPOCHS) -> Searched:
    """Twenty trials of fixed widths, drawn evenly from all that are under the budget."""
    data, rng = first(name, IMAGES, OTHERS), np.random.default_rng(seed)
    inputs = math.prod(data.input_shape)

    def drawn() -> tuple[int, ...]:
        while True:
            widths = tuple(int(rng.integers(1, most + 1)) for most in WIDTHS)
            if _parameters(inputs, *widths, data.outputs) <= budget:
                return widths

    return Searched([trained(name, 100 * seed + at, None, drawn(), epochs) for at in range(MOST)], hit=True)


def _parameters(*widths: int) -> int:
    return sum((before + 1) * after for before, after in pairwise(widths))


def target(name: str, budget: int) -> tuple[Side, ...]:
    """Trials that our sampler, random knobs and TPE on the distance to the budget need; one more than most: in vain."""

    def needed(sampler: Sampler, seed: int) -> float:
        found = searched(name, budget, sampler, seed)
        return len(found.trials) if found.hit else MOST + 1

    return seeded(*(partial(needed, sampler) for sampler in SAMPLERS))


def accuracy(name: str, budget: int, ours: Finder) -> tuple[Side, ...]:
    """Test accuracy under a budget: of what ours finds, and of the best fixed widths."""
    return seeded(
        lambda seed: ours(name, budget, seed).accuracy(budget), lambda seed: fixed(name, budget, seed).accuracy(budget)
    )


def flops(name: str, budget: int, ours: Finder) -> tuple[Side, ...]:
    """Training FLOPs of both."""
    return seeded(lambda seed: ours(name, budget, seed).flops, lambda seed: fixed(name, budget, seed).flops)


def longer(name: str, budget: int) -> tuple[Side, ...]:
    """Test accuracy of ``studies.size``, and of the best fixed widths, each trained for as many epochs as its path."""

    def theirs(seed: int) -> float:
        epochs = sum(map(len, sized(name, budget, seed).trials))
        return fixed(name, budget, seed, epochs).accuracy(budget)

    return seeded(lambda seed: sized(name, budget, seed).accuracy(budget), theirs)
