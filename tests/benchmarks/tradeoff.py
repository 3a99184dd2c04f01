"""The whole trade-off from one run, and networks under budgets: what they cost, and what they are worth.

All in this process, by ``sizer.fit``: what is compared is what is trained, not how trials are handed out.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from statistics import mean

import numpy as np
import optuna
import torch

import sizer
from sizer import networks
from sizer.history import Epoch, best_epoch
from sizer.methods import create
from sizer.training import STATE
from studies.path import Schedule, knob_at
from studies.size_sampler import SIZE, WITHIN, SizeSampler
from tests.benchmarks.fashion import fashion
from tests.benchmarks.row import Side

WIDTH, BATCH, IMAGES, OTHERS = 500, 128, 12_000, 10_000
LOW, HIGH = 1e-4, 1e-2
STEPS, FIRST, TRIALS, EPOCHS = 16, 2, 8, 8
SCHEDULE = Schedule(name="path", each=1, settle=1)
BUDGETS = (10_000, 20_000, 50_000, 100_000, 200_000)
MOST = 20
"""Trials of a search at most."""


@dataclass(frozen=True)
class Curve:
    """Trials, and what all of them cost.

    Attributes:
        epochs: of all trials.
        flops: of all training steps.
    """

    epochs: list[Epoch]
    flops: int

    def at(self, size: float) -> float:
        """Percent of test images at the best validation accuracy of at most so many parameters."""
        return 100 * best_epoch(epoch for epoch in self.epochs if epoch.parameters <= size).test_accuracy

    @property
    def smallest(self) -> int:
        return min(epoch.parameters for epoch in self.epochs)


def trained(seed: int, knob: float, epochs: int, settle: int = 0, **options: Path | None) -> list[Epoch]:
    """One trial."""
    data = fashion(IMAGES, OTHERS)
    torch.manual_seed(seed)
    module = networks.build("mlp", data.input_shape, data.outputs, [WIDTH])
    folder, start, kept = (options.get(name) for name in ("folder", "start", "kept"))

    def told(epoch: Epoch) -> None:
        if kept is not None and folder is not None and epoch.epoch == epochs - settle:
            shutil.copyfile(folder / STATE, kept)

    method = create("shrinknets", knob)
    return sizer.fit(
        module, data, method, epochs=epochs, settle=settle, batch_size=BATCH, seed=seed, folder=folder, start=start,
        on_epoch=told,
    ).history  # fmt: skip


@cache
def walked(seed: int) -> Curve:
    """A path of 16 steps."""
    steps: list[list[Epoch]] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(STEPS):
            last = Path(place, f"{number - 1}.safetensors") if number else None
            steps.append(
                trained(
                    100 * seed + number, knob_at("shrinknets", LOW, HIGH, number, STEPS),
                    SCHEDULE.sizing(number, FIRST) + SCHEDULE.settle, SCHEDULE.settle,
                    folder=Path(place, str(number)), start=last, kept=Path(place, f"{number}.safetensors"),
                )
            )  # fmt: skip
    return curve(steps)


@cache
def independent(seed: int, epochs: int) -> Curve:
    """Eight trials over the same range, evenly in the logarithm."""
    knobs = np.geomspace(LOW, HIGH, TRIALS)
    return curve([trained(100 * seed + at, float(knob), epochs) for at, knob in enumerate(knobs)])


def curve(trials: Iterable[list[Epoch]]) -> Curve:
    held = [epochs for epochs in trials if epochs]
    return Curve([epoch for epochs in held for epoch in epochs], sum(epochs[-1].training_flops for epochs in held))


def path_cost() -> tuple[Side, ...]:
    """Training FLOPs of the path, and of the independent trials; another seed each turn."""
    return _seeded(lambda seed: walked(seed).flops, lambda seed: independent(seed, EPOCHS).flops)


def path_accuracy(epochs: int = EPOCHS) -> tuple[Side, ...]:
    """Test accuracy of both, the mean over 16 sizes that both have."""

    def over(seed: int, whose: Callable[[int], Curve]) -> float:
        least = max(walked(seed).smallest, independent(seed, epochs).smallest)
        return mean(whose(seed).at(size) for size in np.geomspace(least, 785 * WIDTH, STEPS))

    return _seeded(partial(over, whose=walked), partial(over, whose=lambda seed: independent(seed, epochs)))


def total_epochs() -> int:
    """Epochs of the whole path."""
    return sum(SCHEDULE.sizing(number, FIRST) + SCHEDULE.settle for number in range(STEPS))


@cache
def final_size(seed: int, number: int, knob: float) -> int:
    return trained(100 * seed + number, knob, EPOCHS)[-1].parameters


def searched(budget: int, sampler: Callable[[int], optuna.samplers.BaseSampler], seed: int) -> float:
    """How many trials a search needs until one ends at most a tenth under the budget; one more than it may have."""
    study = optuna.create_study(direction="minimize", sampler=sampler(seed))
    for number in range(MOST):
        trial = study.ask()
        size = final_size(seed, number, trial.suggest_float("lambda", LOW / 10, HIGH, log=True))
        if (1 - WITHIN) * budget <= size <= budget:
            return number + 1
        trial.set_user_attr(SIZE, size)
        study.tell(trial, abs(math.log(size / budget)))
    return MOST + 1


def target(budget: int) -> tuple[Side, ...]:
    """Trials that our sampler, random knobs and TPE on the distance to the budget need; another seed each turn."""
    samplers: tuple[Callable[[int], optuna.samplers.BaseSampler], ...] = (
        lambda seed: SizeSampler([budget], seed=seed),
        lambda seed: optuna.samplers.RandomSampler(seed),
        lambda seed: optuna.samplers.TPESampler(seed=seed),
    )
    return _seeded(*(partial(searched, budget, sampler) for sampler in samplers))


def _seeded(*sides: Callable[[int], float]) -> tuple[Side, ...]:
    """Sides whose n-th turns have the same seed."""

    def counted(side: Callable[[int], float]) -> Side:
        seeds = count()
        return lambda: float(side(next(seeds)))

    return tuple(counted(side) for side in sides)
