"""Our loop on a fixed network, against loops that people write by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import sizer
from sizer.datasets import Data
from sizer.methods import create
from tests.benchmarks.images import fashion, mlp
from tests.benchmarks.row import Side


def against_tutorial(width: int, epochs: int, training: int, batch: int = 64) -> tuple[Side, ...]:
    """Against the loop of PyTorch's tutorial: DataLoaders, the default Adam, a loss read every 100 batches, and its
    test loop over the validation and test images, which ``fit`` measures, too."""
    return _both(_tutorial, width, epochs, training, batch)


def against_hand_tuned(width: int, epochs: int, training: int, batch: int = 256) -> tuple[Side, ...]:
    """Against a loop tuned by hand: resident tensors, fused Adam, nothing read from the device within an epoch."""
    return _both(_hand_tuned, width, epochs, training, batch)


def _both(loop: Callable[[nn.Module, Data, int, int], list[float]], width: int, epochs: int, training: int, batch: int
          ) -> tuple[Side, ...]:  # fmt: skip
    """Seconds an epoch of 784-W-W-W-10, the first left out: training, and losses and accuracies of the other parts."""
    data = fashion(training, training // 4)

    def ours() -> float:
        ends: list[float] = []
        sizer.fit(mlp(data, width, width, width), data, create("fixed"), epochs=epochs, batch_size=batch,
                  on_epoch=lambda _: ends.append(time.perf_counter()))  # fmt: skip
        return (ends[-1] - ends[0]) / (epochs - 1)

    def theirs() -> float:
        ends = loop(mlp(data, width, width, width), data, epochs, batch)
        return (ends[-1] - ends[0]) / (epochs - 1)

    return ours, theirs


def _tutorial(module: nn.Module, data: Data, epochs: int, batch: int) -> list[float]:
    training = DataLoader(TensorDataset(data.x_train, data.y_train), batch_size=batch, shuffle=True)
    others = [DataLoader(TensorDataset(x, y), batch_size=batch)
              for x, y in ((data.x_val, data.y_val), (data.x_test, data.y_test))]  # fmt: skip
    loss_of, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(module.parameters())
    ends = []
    for _ in range(epochs):
        module.train()
        for at, (x, y) in enumerate(training):
            loss = loss_of(module(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if at % 100 == 0:
                loss.item()
        module.eval()
        for part in others:
            total = hits = 0.0
            with torch.no_grad():
                for x, y in part:
                    outputs = module(x)
                    total += loss_of(outputs, y).item()
                    hits += (outputs.argmax(1) == y).type(torch.float).sum().item()
        ends.append(time.perf_counter())
    return ends


def _hand_tuned(module: nn.Module, data: Data, epochs: int, batch: int) -> list[float]:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    ends = []
    for _ in range(epochs):
        module.train()
        total, hits = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for rows in torch.split(torch.randperm(len(data.x_train)), batch):
            x, y = data.x_train[rows], data.y_train[rows]
            optimizer.zero_grad()
            outputs = module(x)
            loss = F.cross_entropy(outputs, y)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            total += loss.detach() * len(rows)
            hits += (outputs.argmax(1) == y).sum()
        module.eval()
        _measure(module, data.x_val, data.y_val)
        _measure(module, data.x_test, data.y_test)
        ends.append(time.perf_counter())
    return ends


@torch.no_grad()
def _measure(module: nn.Module, x: Tensor, y: Tensor) -> None:
    for inputs, targets in zip(torch.split(x, 1024), torch.split(y, 1024), strict=True):
        outputs = module(inputs)
        F.cross_entropy(outputs, targets).item()
        (outputs.argmax(1) == targets).sum().item()
