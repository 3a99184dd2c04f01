"""The whole trade-off from one run: what it costs, and what it is worth.

All in this process, by ``sizer.fit``: what is compared is what is trained, not how trials are handed out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

import numpy as np
import torch

import sizer
from sizer import networks
from sizer.history import Epoch, best_epoch
from sizer.methods import create
from sizer.training import STATE
from studies.path import Schedule, knob_at
from tests.benchmarks.images import first
from tests.benchmarks.row import Side, seeded

WIDTH, BATCH, IMAGES, OTHERS = 500, 128, 12_000, 10_000
LOW, HIGH = 1e-4, 1e-2
STEPS, FIRST, TRIALS, EPOCHS = 16, 2, 8, 8
SCHEDULE = Schedule(name="path", each=1, settle=1)


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


def trained(name: str, seed: int, knob: float, epochs: int, settle: int = 0, **options: Path | None) -> list[Epoch]:
    """One trial."""
    data = first(name, IMAGES, OTHERS)
    torch.manual_seed(seed)
    module = networks.build("mlp", data.input_shape, data.outputs, [WIDTH])
    folder, start, kept = (options.get(key) for key in ("folder", "start", "kept"))

    def told(epoch: Epoch) -> None:
        if kept is not None and folder is not None and epoch.epoch == epochs - settle:
            shutil.copyfile(folder / STATE, kept)

    method = create("shrinknets", knob)
    return sizer.fit(
        module, data, method, epochs=epochs, settle=settle, batch_size=BATCH, seed=seed, folder=folder, start=start,
        on_epoch=told,
    ).history  # fmt: skip


@cache
def walked(name: str, seed: int) -> Curve:
    """A path of 16 steps."""
    steps: list[list[Epoch]] = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(STEPS):
            last = Path(place, f"{number - 1}.safetensors") if number else None
            steps.append(
                trained(
                    name, 100 * seed + number, knob_at("shrinknets", LOW, HIGH, number, STEPS),
                    SCHEDULE.sizing(number, FIRST) + SCHEDULE.settle, SCHEDULE.settle,
                    folder=Path(place, str(number)), start=last, kept=Path(place, f"{number}.safetensors"),
                )
            )  # fmt: skip
    return curve(steps)


@cache
def independent(name: str, seed: int, epochs: int) -> Curve:
    """Eight trials over the same range, evenly in the logarithm."""
    knobs = np.geomspace(LOW, HIGH, TRIALS)
    return curve([trained(name, 100 * seed + at, float(knob), epochs) for at, knob in enumerate(knobs)])


def curve(trials: Iterable[list[Epoch]]) -> Curve:
    held = [epochs for epochs in trials if epochs]
    return Curve([epoch for epochs in held for epoch in epochs], sum(epochs[-1].training_flops for epochs in held))


def cost(name: str) -> tuple[Side, ...]:
    """Training FLOPs of the path, and of the independent trials; another seed each turn."""
    return seeded(lambda seed: walked(name, seed).flops, lambda seed: independent(name, seed, EPOCHS).flops)


def accuracy(name: str, epochs: int = EPOCHS) -> tuple[Side, ...]:
    """Test accuracy of both, the mean over 16 sizes that both have."""

    def over(seed: int, whose: Callable[[int], Curve]) -> float:
        least = max(walked(name, seed).smallest, independent(name, seed, epochs).smallest)
        return mean(whose(seed).at(size) for size in np.geomspace(least, 785 * WIDTH, STEPS))

    return seeded(
        partial(over, whose=partial(walked, name)),
        partial(over, whose=lambda seed: independent(name, seed, epochs)),
    )


def total_epochs() -> int:
    """Epochs of the whole path."""
    return sum(SCHEDULE.sizing(number, FIRST) + SCHEDULE.settle for number in range(STEPS))
