"""The rows of the benchmark: what is measured, against whom, and the bound that it must keep."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import optuna
import torch
from torch import nn
from torch.nn import functional as F

import sizer
from sizer import datasets, networks
from sizer.datasets import Data
from sizer.methods import create
from sizer.methods.shrinknets import ShrinkNets
from sizer.net import Net
from studies import sweep
from tests.benchmarks import surgery
from tests.studies.sweeps import Seen, small_plan

Side = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One figure made of seconds: ours, and those of an opponent where there is one."""

    name: str
    what: str
    bound: str
    limit: float
    at_most: bool
    sides: Callable[[], tuple[Side, Side | None]]
    value: Callable[[float, float], float] = lambda ours, theirs: ours / theirs


@cache
def fashion(training: int = 48_000, others: int = 12_000) -> Data:
    data = datasets.load("fashion_mnist")
    parts = {f"{a}_{part}": getattr(data, f"{a}_{part}")[:n] for a in "xy"
             for part, n in (("train", training), ("val", others), ("test", others))}  # fmt: skip
    return replace(data, **parts)


def mlp(data: Data, *widths: int) -> nn.Module:
    torch.manual_seed(0)
    return networks.build("mlp", data.input_shape, data.outputs, list(widths))


def loop(width: int, epochs: int, training: int) -> tuple[Side, Side]:
    """Seconds an epoch, the first left out: training, and the losses and accuracies of validation and test sets."""
    data = fashion(training, training // 4)

    def ours() -> float:
        ends: list[float] = []
        sizer.fit(mlp(data, width, width, width), data, create("fixed"), epochs=epochs,
                  on_epoch=lambda _: ends.append(time.perf_counter()))  # fmt: skip
        return (ends[-1] - ends[0]) / (epochs - 1)

    def theirs() -> float:
        module, ends = mlp(data, width, width, width), []
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
        for _ in range(epochs):
            module.train()
            total = hits = torch.zeros(())
            for rows in torch.randperm(len(data.x_train)).split(256):
                x, y = data.x_train[rows], data.y_train[rows]
                optimizer.zero_grad()
                outputs = module(x)
                loss = F.cross_entropy(outputs, y)
                loss.backward()
                optimizer.step()
                total = total + loss.detach() * len(rows)
                hits = hits + (outputs.argmax(1) == y).sum()
            module.eval()
            with torch.no_grad():
                for x, y in ((data.x_val, data.y_val), (data.x_test, data.y_test)):
                    for inputs, targets in zip(x.split(1024), y.split(1024), strict=True):
                        outputs = module(inputs)
                        F.cross_entropy(outputs, targets).item()
                        (outputs.argmax(1) == targets).sum().item()
            ends.append(time.perf_counter())
        return (ends[-1] - ends[0]) / (epochs - 1)

    return ours, theirs


class NeverRemoves(ShrinkNets):
    """Closes gates, and leaves the units in place."""

    def __init__(self, value: float) -> None:
        super().__init__(value, check_every=10**9)

    def after_epoch(self, net: Net) -> None:
        pass


def shrinking(epochs: int) -> tuple[Side, Side]:
    """Training seconds of ``epochs`` epochs from 10,000 units; without removal, all epochs cost what the first does."""
    data = fashion(others=1_000)

    def seconds(method: ShrinkNets, trained: int) -> float:
        return sizer.fit(mlp(data, 10_000), data, method, epochs=trained).history[-1].seconds

    return lambda: seconds(ShrinkNets(1e-3), epochs), lambda: seconds(NeverRemoves(1e-3), 1) * epochs


def orchestration(trials: int) -> tuple[Side, Side]:
    """Seconds a trial, the first two left out so that workers are warm: one worker, one epoch of a tiny network."""
    plan = small_plan(name="bench", widths=[8], epochs=1, trials=trials, batch_size=512, arms={"shrinknets": {}})

    def spacing(study: optuna.Study) -> float:
        ends = sorted(t.datetime_complete for t in study.trials if t.datetime_complete is not None)[1:]
        return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.db"
            sweep.run(plan, path, watch=Seen(), concurrency=1)
            return spacing(optuna.load_study(study_name="bench/shrinknets", storage=f"sqlite:///{path}"))

    def theirs() -> float:
        data = datasets.load("digits")

        def objective(trial: optuna.Trial) -> float:
            torch.manual_seed(trial.number)
            module = networks.build("mlp", data.input_shape, data.outputs, [8])
            method = create("shrinknets", trial.suggest_float("lambda", 1e-5, 1e-2, log=True))
            best = sizer.fit(module, data, method, epochs=1, batch_size=512).best
            assert best is not None
            return best.val_accuracy

        with tempfile.TemporaryDirectory() as folder:
            study = optuna.create_study(storage=f"sqlite:///{folder}/bench.db", direction="maximize")
            study.optimize(objective, n_trials=trials)
            return spacing(study)

    return ours, theirs


ROWS = {
    row.name: row
    for row in (
        Row("loop", "our loop against a hand-written resident one, 784-100-100-100-10, seconds an epoch",
            "at most 1.10", 1.10, True, lambda: loop(100, 3, 48_000)),
        Row("loop-wide", "the same, 784-1000-1000-1000-10 on 8,000 images",
            "at most 1.10", 1.10, True, lambda: loop(1000, 2, 8_000)),
        Row("shrinking", "ShrinkNets from 10,000 units (proximal, lambda 1e-3, 10 epochs of Fashion-MNIST): how many "
            "times faster than never removing (one epoch of it, times 10)",
            "at least 5", 5.0, False, lambda: shrinking(10), lambda ours, theirs: theirs / ours),
        *(Row(f"attach-{name}", f"attach() on {name} at its default widths, seconds",
              "under 5", 5.0, True, partial(surgery.attaching, name), lambda ours, _: ours)
          for name in networks.names()),
        Row("removal", "16 units taken from each width of resnet18, against Torch-Pruning",
            "at most 0.5", 0.5, True, lambda: surgery.removing(16)),
        Row("gated-resnet18", "a training step of resnet18 with gates against one without, 32 CIFAR-sized images",
            "at most 1.1", 1.1, True, lambda: surgery.gated("resnet18", surgery.CIFAR, 32, 2)),
        Row("gated-lenet", "a training step of lenet (50, 50, 5000) with gates against one without, 256 images",
            "at most 1.3", 1.3, True, lambda: surgery.gated("lenet", (1, 28, 28), 256, 5)),
        Row("orchestration", "a trial through Ray and the database against plain Optuna, warm workers: seconds more",
            "under 0.3", 0.3, True, lambda: orchestration(8), lambda ours, theirs: ours - theirs),
    )
}  # fmt: skip
