"""Networks under budgets: how many trials a search for sizes needs, and what its networks are worth.

All in this process, by ``sizer.fit``: what is compared is what is trained, not how trials are handed out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
import optuna
import torch
from torch import nn

import sizer
import studies
from sizer import Epoch, best_epoch, cost, networks
from sizer.datasets import Data
from sizer.methods import create
from studies.size_sampler import SIZE, WITHIN, SizeSampler
from tests.benchmarks.images import first
from tests.benchmarks.row import Side, seeded

Finder = Callable[["Task", int, int], "Searched"]
"""task, budget, seed -> trials under a budget."""
BATCH, EPOCHS, IMAGES, OTHERS = 128, 8, 12_000, 10_000
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
class Task:
    """What is sized: a network of these widths at first, under budgets of parameters or of FLOPs."""

    data: str
    network: str = "mlp"
    widths: tuple[int, ...] = (300, 100)
    kind: Literal["params", "flops"] = "params"

    def images(self) -> Data:
        return first(self.data, IMAGES, OTHERS)

    def build(self, widths: tuple[int, ...], seed: int) -> nn.Module:
        """The network with the weights of a seed."""
        torch.manual_seed(seed)
        return networks.build(self.network, self.images().input_shape, self.images().outputs, list(widths))

    def size(self, epoch: Epoch) -> int:
        return epoch.parameters if self.kind == "params" else epoch.flops

    @cache  # noqa: B019  # tasks are few
    def size_of(self, widths: tuple[int, ...]) -> int:
        module = self.build(widths, 0)
        if self.kind == "params":
            return cost.parameters(module)
        return cost.flops(module, (self.images().x_train[:1],))[0]


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

    def accuracy(self, task: Task, budget: int) -> float:
        """Percent of test images of the network under the budget that validation chooses; NaN where there is none."""
        fits = [epoch for epochs in self.trials for epoch in epochs if task.size(epoch) <= budget]
        return 100 * best_epoch(fits).test_accuracy if fits else math.nan


@cache
def trained(task: Task, seed: int, knob: float | None, widths: tuple[int, ...], epochs: int = EPOCHS) -> list[Epoch]:
    """A trial: sized under a knob, or of fixed widths."""
    method = create("fixed") if knob is None else create("shrinknets", knob)
    module = task.build(widths, seed)
    return sizer.fit(module, task.images(), method, epochs=epochs, batch_size=BATCH, seed=seed).history


@cache
def searched(task: Task, budget: int, sampler: Sampler, seed: int) -> Searched:
    """Trials until one ends at most a tenth under the budget; all train with one seed, as such a sweep's do."""
    study = optuna.create_study(direction="minimize", sampler=sampler(budget, seed))
    trials: list[list[Epoch]] = []
    while len(trials) < MOST:
        trial = study.ask()
        trials.append(trained(task, seed, trial.suggest_float("lambda", LOW, HIGH, log=True), task.widths))
        size = task.size(trials[-1][-1])
        if (1 - WITHIN) * budget <= size <= budget:
            return Searched(trials, hit=True)
        trial.set_user_attr(SIZE, size)
        study.tell(trial, abs(math.log(size / budget)))
    return Searched(trials, hit=False)


def looked(task: Task, budget: int, seed: int) -> Searched:
    """The search by our sampler."""
    return searched(task, budget, SAMPLERS[0], seed)


@cache
def sized(task: Task, budget: int, seed: int) -> Searched:
    """What ``studies.size`` does, its range left as it is."""
    limit = {f"max_{task.kind}": budget}
    module = task.build(task.widths, seed)
    found = studies.size(module, task.images(), **limit, epochs=EPOCHS, batch_size=BATCH, seed=100 * seed)
    return Searched([each.epochs for each in found.trials], hit=True)


@cache
def fixed(task: Task, budget: int, seed: int, epochs: int = EPOCHS) -> Searched:
    """Twenty trials of fixed widths, drawn evenly from all that are under the budget."""
    rng = np.random.default_rng(seed)

    def drawn() -> tuple[int, ...]:
        while True:
            widths = tuple(int(rng.integers(1, most + 1)) for most in task.widths)
            if task.size_of(widths) <= budget:
                return widths

    return Searched([trained(task, 100 * seed + at, None, drawn(), epochs) for at in range(MOST)], hit=True)


def target(task: Task, budget: int) -> tuple[Side, ...]:
    """Trials that our sampler, random knobs and TPE on the distance to the budget need; one more than most: in vain."""

    def needed(sampler: Sampler, seed: int) -> float:
        found = searched(task, budget, sampler, seed)
        return len(found.trials) if found.hit else MOST + 1

    return seeded(*(partial(needed, sampler) for sampler in SAMPLERS))


def accuracy(task: Task, budget: int, ours: Finder) -> tuple[Side, ...]:
    """Test accuracy under a budget: of what ours finds, and of the best fixed widths."""
    return seeded(
        lambda seed: ours(task, budget, seed).accuracy(task, budget),
        lambda seed: fixed(task, budget, seed).accuracy(task, budget),
    )


def flops(task: Task, budget: int, ours: Finder) -> tuple[Side, ...]:
    """Training FLOPs of both."""
    return seeded(lambda seed: ours(task, budget, seed).flops, lambda seed: fixed(task, budget, seed).flops)


def longer(task: Task, budget: int) -> tuple[Side, ...]:
    """Test accuracy of ``studies.size``, and of the best fixed widths, each trained for as many epochs as its path."""

    def theirs(seed: int) -> float:
        epochs = sum(map(len, sized(task, budget, seed).trials))
        return fixed(task, budget, seed, epochs).accuracy(task, budget)

    return seeded(lambda seed: sized(task, budget, seed).accuracy(task, budget), theirs)
