"""What a user's own loop has: small networks, an optimiser, a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import sizer
from sizer import Net
from sizer.methods import create

X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(80, 7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip


class Bare(nn.Module):
    """Reads units with a parameter of its own: an operation among others in forward()."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight, self.last = nn.Linear(64, 9), nn.Parameter(torch.randn(9, 8) / 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.relu(self.first(x.flatten(1))) @ self.weight))


def attach(module: nn.Module, method: str = "shrinknets", knob: float = 1e-3, x: Tensor = X, **settings: Any) -> Net:
    torch.manual_seed(0)
    return sizer.attach(module, x, create(method, knob, **settings))


def adam(net: Net, lr: float = 1e-2) -> torch.optim.Optimizer:
    return net.track(torch.optim.Adam(net.param_groups(lr)))


def step(net: Net, optimizer: torch.optim.Optimizer, forward: Any = None) -> None:
    optimizer.zero_grad()
    (net if forward is None else forward)(X).square().sum().backward()
    optimizer.step()


def equal(left: Tensor, right: Tensor) -> bool:
    return torch.allclose(left, right, atol=1e-5)


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in [*module.parameters(), *module.buffers()]]
