"""What sizing costs and saves: ShrinkNets from 10,000 units, and single epochs beside the papers' own code."""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam, Optimizer

import sizer
from sizer import networks
from sizer.datasets import Data
from sizer.history import Epoch
from sizer.methods import create
from sizer.methods.method import Method
from sizer.methods.shrinknets import ShrinkNets
from sizer.net import Net
from tests.benchmarks.images import fashion, mlp
from tests.benchmarks.row import Side

WIDE = 10_000
STRENGTH = 1e-3


class NeverRemoves(ShrinkNets):
    """Closes gates, and leaves the units in place."""

    def __init__(self, value: float) -> None:
        super().__init__(value, check_every=10**9)

    def after_epoch(self, net: Net) -> None:
        pass


def shrinking(epochs: int) -> tuple[Side, ...]:
    """Seconds of a whole training, evaluation left out, against one that never removes.

    Without removal every epoch costs what the first one does, so that is trained alone and counted ``epochs`` times.
    """
    data = fashion(others=1_000)

    def seconds(method: ShrinkNets, trained: int) -> float:
        return sizer.fit(mlp(data, WIDE), data, method, epochs=trained).history[-1].seconds

    return (
        lambda: seconds(ShrinkNets(STRENGTH), epochs),
        lambda: seconds(NeverRemoves(STRENGTH), 1) * epochs,
    )


def shrunk(epochs: int) -> tuple[Side, ...]:
    """Seconds of the last epoch of such a training, against an epoch of a plain network of the final width.

    All epochs but the last two are trained once. Each turn goes on from there for two more, as the opponent trains two,
    and the second counts.
    """
    data = fashion(others=1_000)
    kept = tempfile.TemporaryDirectory()

    def going_on(folder: Path, until: int) -> sizer.Run:
        return sizer.fit(mlp(data, WIDE), data, ShrinkNets(STRENGTH), epochs=until, folder=folder)

    @cache
    def begun() -> tuple[Path, int]:
        folder = Path(kept.name, "run")
        return folder, sum(going_on(folder, epochs - 2).net.widths.values())

    def ours() -> float:
        with tempfile.TemporaryDirectory() as copied:
            return _last(going_on(shutil.copytree(begun()[0], Path(copied, "run")), epochs).history)

    def theirs() -> float:
        return _last(sizer.fit(mlp(data, begun()[1]), data, create("fixed"), epochs=2).history)

    return ours, theirs


def _last(history: list[Epoch]) -> float:
    return history[-1].seconds - history[-2].seconds


def shrinknets_epoch(rule: str) -> tuple[Side, ...]:
    """CPU-seconds of one epoch of ShrinkNets 784-10000-10, batch 256, on 10,000 images."""
    data = fashion(10_000, 100)
    return (lambda: _cpu_seconds(mlp(data, WIDE), data, create("shrinknets", STRENGTH, rule=rule), 256, 1e-3),)


def das_epoch() -> tuple[Side, ...]:
    """CPU-seconds of one dynamic epoch of das-conv from 100 units a layer on 10,000 images, as das-datasets has it."""
    data = fashion(10_000, 100)

    def ours() -> float:
        torch.manual_seed(0)
        module = networks.build("das-conv", data.input_shape, data.outputs, [100] * 5)
        return _cpu_seconds(module, data, create("auto-sizing", 2e-5), 128, 4e-4)

    return (ours,)


def _cpu_seconds(module: nn.Module, data: Data, method: Method, batch: int, rate: float) -> float:
    """Of all threads, for one epoch: growth, training, removal, and an evaluation of 200 images; no preparation."""
    began = 0.0

    def optimizer(groups: list[dict[str, object]]) -> Optimizer:
        nonlocal began
        began = time.process_time()
        return Adam(groups, fused=True)

    sizer.fit(module, data, method, epochs=1, batch_size=batch, learning_rate=rate, optimizer=optimizer)
    return time.process_time() - began
