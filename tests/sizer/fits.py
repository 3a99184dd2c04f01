"""What the tests of fit() share: digits as Datasets, small networks, and runs compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import sizer
from sizer import Loaders, Run, networks
from sizer.methods import Method, create
from tests.sizer.digit_images import digits


class Interrupted(Exception):
    """Stands for whatever ends a run from outside."""


class Stream(IterableDataset[Any]):
    """Samples in their order, of unknown number."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(self.x, self.y, strict=True))


def mlp(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    return networks.build("mlp", (1, 8, 8), 10, list(widths or (12,)))


def part(name: str, samples: int | None = None) -> TensorDataset:
    data = digits()
    return TensorDataset(getattr(data, f"x_{name}")[:samples], getattr(data, f"y_{name}")[:samples])


def loaders(samples: int = 200, train: Any = None, test: Dataset[Any] | None = None) -> Loaders:
    return Loaders(part("train", samples) if train is None else train, part("val", 100), test)


def shrink(value: float = 1e-3) -> Method:
    return create("shrinknets", value)


def fit(module: nn.Module | None = None, data: Any = None, method: Method | None = None, **values: Any) -> Run:
    """A short run on 200 digits, but for what is given."""
    return sizer.fit(
        module or mlp(), data or loaders(), method or create("fixed"), **{"epochs": 2, "batch_size": 50, **values}
    )


def measured(run: Run) -> list[str]:
    """The history without what a clock and the system say; text, for nan equals itself there."""
    rows = [epoch.to_dict() for epoch in run.history]
    return [repr({key: row[key] for key in row if key not in {"seconds", "peak_memory"}}) for row in rows]


def weights(run: Run) -> Tensor:
    return torch.cat([value.detach().double().flatten() for value in run.net.module.state_dict().values()])


def interrupted_after(epoch: int) -> Any:
    def on_epoch(record: sizer.Epoch) -> None:
        if record.epoch == epoch:
            raise Interrupted

    return on_epoch
