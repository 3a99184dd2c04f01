"""The MLP or LeNet cell of ShrinkNets' evaluation as packs, against one trial after the other; needs torch and sizer.

python -m tests.benchmarks.gpu                       all arms of the MLP cell, 50 trials each, 100 epochs
python -m tests.benchmarks.gpu --network lenet       LeNet's
python -m tests.benchmarks.gpu --device cpu --trials 2 --epochs 1 --images 2000

One row an arm: seconds of all its trials in packs; how many times faster that is than one after the other, of which a
few epochs of a few trials are trained; and the share of the limit: Adam alone reads and writes 28 bytes of a parameter
in each step, which at the memory's measured bandwidth takes so much of the time.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

import sizer
from sizer import datasets, networks, packs
from sizer.datasets import Data
from sizer.methods import create
from sizer.methods.method import Method
from sizer.run import Run

ADAM = 28
"""Bytes a parameter and step: weight, gradient and two moments are read, all but the gradient are written."""
STARTS = {"mlp": [500, 500, 500], "lenet": [50, 50, 5000]}
CONVOLUTIONS = ("conv1", "conv2")
BATCH = 256
COLUMNS = ("arm", "trials", "epochs", "seconds", "one by one", "times faster", "of the limit", "test accuracy", "units")

Trial = Callable[[], tuple[nn.Module, Method, float]]
"""Gives network, method and weight decay."""


def main(words: list[str] | None = None) -> int:
    options = parsed(words)
    device = torch.device(options.device)
    data = shortened(options.images)
    bandwidth = copied(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    print(
        f"{datetime.date.today()}, {name}, torch {torch.__version__}, {options.network} on Fashion-MNIST, "
        f"{len(data.x_train):,} training images, batch {BATCH}, packs of {options.pack}, memory copied at "
        f"{bandwidth / 1e9:,.0f} GB/s\n"
    )
    print(line(COLUMNS) + "\n" + line(["---"] * len(COLUMNS)), flush=True)
    for arm in options.arms:
        trials = list(drawn(arm, options.network, data, options.trials, options.widths))
        print(line(row(arm, trials, data, device, options, bandwidth)), flush=True)
    return 0


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--network", choices=STARTS, default="mlp")
    parser.add_argument("--arms", nargs="+", default=["shrinknets", "fixed", "fixed-l2"])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--images", type=int, default=48_000, help="of the training set")
    parser.add_argument("--pack", type=int, default=50, help="trials at once")
    parser.add_argument("--widths", type=int, default=4096, help="baselines draw from 16 to so many units a layer")
    parser.add_argument("--alone", type=int, default=3, help="trials trained by themselves, 3 epochs each")
    return parser.parse_args(words)


def row(
    arm: str, trials: list[Trial], data: Data, device: torch.device, options: argparse.Namespace, bandwidth: float
) -> list[str]:
    """What one arm took."""
    runs, seconds = packed(trials, data, device, options.epochs, options.pack)
    kept = [run for run in runs if isinstance(run, Run) and run.best is not None]
    steps = math.ceil(len(data.x_train) / BATCH)
    moved = sum(ADAM * steps * epoch.parameters for run in kept for epoch in run.history)
    chosen = trials[:: max(1, len(trials) // options.alone)][: options.alone]
    one = statistics.mean(by_itself(trial, seed, data, device) for seed, trial in enumerate(chosen))
    alone = one * len(trials) * options.epochs
    accuracy = statistics.median(run.best.test_accuracy for run in kept if run.best)
    units = statistics.median(sum(run.best.widths.values()) for run in kept if run.best)
    return [
        arm, f"{len(kept)}", f"{options.epochs}", f"{seconds:.1f}", f"{alone:.0f}", f"{alone / seconds:.1f}",
        f"{100 * moved / bandwidth / seconds:.2g} %", f"{accuracy:.4f}", f"{units:.0f}",
    ]  # fmt: skip


def packed(
    trials: list[Trial], data: Data, device: torch.device, epochs: int, size: int
) -> tuple[list[Run | Exception], float]:
    """All trials in packs of a size, and the seconds that took, networks built and epochs measured."""
    began = time.perf_counter()
    runs: list[Run | Exception] = []
    for first in range(0, len(trials), size):
        members = []
        for seed, trial in enumerate(trials[first : first + size], first):
            torch.manual_seed(seed)
            module, method, decay = trial()
            members.append(packs.Member(lambda module=module: module, method, seed, weight_decay=decay))
        runs += packs.fit(members, data, epochs=epochs, batch_size=BATCH, device=device,
                          note=lambda said: print(said, file=sys.stderr))  # fmt: skip
    finished(device)
    return runs, time.perf_counter() - began


def by_itself(trial: Trial, seed: int, data: Data, device: torch.device) -> float:
    """Seconds of an epoch of a trial alone, the first left out."""
    ends: list[float] = []

    def ended(_: sizer.Epoch) -> None:
        finished(device)
        ends.append(time.perf_counter())

    torch.manual_seed(seed)
    module, method, decay = trial()
    sizer.fit(module, data, method, epochs=3, batch_size=BATCH, seed=seed, device=device, weight_decay=decay,
              on_epoch=ended)  # fmt: skip
    return (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else math.nan


def drawn(arm: str, network: str, data: Data, count: int, widest: int) -> Iterator[Trial]:
    """The trials of an arm of the evaluation (protocols: ShrinkNets, Figure 2), the same in every run."""
    generator = random.Random(arm)

    def log_uniform(low: float, high: float) -> float:
        return math.exp(generator.uniform(math.log(low), math.log(high)))

    for _ in range(count):
        widths, decay = list(STARTS[network]), 0.0
        knob = log_uniform(1e-5, 1e-2) if arm == "shrinknets" else None
        if knob is None:
            layers = networks.layers(network)
            widths = [generator.randint(1, 50) if name in CONVOLUTIONS else round(log_uniform(16, widest))
                      for name in layers]  # fmt: skip
            decay = log_uniform(1e-5, 1e-2) if arm == "fixed-l2" else 0.0
        yield _trial(network, data, widths, arm, knob, decay)


def _trial(network: str, data: Data, widths: list[int], arm: str, knob: float | None, decay: float) -> Trial:
    def make() -> tuple[nn.Module, Method, float]:
        module = networks.build(network, data.input_shape, data.outputs, widths)
        method = create(arm, knob, rule="subgradient") if knob is not None else create("fixed")
        return module, method, decay

    return make


def shortened(images: int) -> Data:
    data = datasets.load("fashion_mnist")
    return replace(data, x_train=data.x_train[:images], y_train=data.y_train[:images])


def copied(device: torch.device) -> float:
    """Bytes a second that the device's memory reads and writes, as a copy does."""
    count = 2**28 if device.type == "cuda" else 2**24
    source, target = (torch.zeros(count, device=device) for _ in range(2))
    best = math.inf
    for _ in range(10):
        finished(device)
        began = time.perf_counter()
        target.copy_(source)
        finished(device)
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() * source.element_size() / best


def finished(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
