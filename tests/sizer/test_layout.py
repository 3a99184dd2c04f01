"""Convolutions' channels lie side by side, and what an optimiser keeps lies as its parameter does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sizer
from sizer import layout, networks
from sizer.datasets import Data
from sizer.methods import create
from sizer.net import Net
from sizer.run import Run
from sizer.training import STATE


def lying_alike(net: Net, optimizer: torch.optim.Optimizer) -> bool:
    """Whether all state lies as its parameter, and all kernels channels last."""
    for parameter in net.module.parameters():
        if parameter.dim() == 4 and parameter.stride(1) != 1:
            return False
        state = optimizer.state[parameter].values()
        if any(value.dim() and value.stride() != parameter.stride() for value in state):
            return False
    return True


@pytest.fixture(scope="module")
def data() -> Data:
    torch.manual_seed(3)
    x, y = torch.randn(96, 1, 16, 16), torch.randint(3, (96,))
    return Data("noise", "classification", x[:64], y[:64], x[64:], y[64:], x[64:], y[64:], (1, 16, 16), 3, {})


@pytest.mark.parametrize("method", ["shrinknets", "auto-sizing"])
def test_it_stays_so_through_resizes_and_when_a_run_goes_on(method: str, data: Data, tmp_path: Path) -> None:
    def run(epochs: int) -> Run:
        torch.manual_seed(0)
        module = networks.build("lenet", (1, 16, 16), 3, [6, 1, 9])
        chosen = create(method, 3e-2, **({"check_every": 1} if method == "shrinknets" else {"fine_tuning": 0.0}))
        return sizer.fit(module, data, chosen, epochs=epochs, batch_size=8, learning_rate=3e-3, folder=tmp_path)

    assert (tmp_path / STATE).exists() is False
    first = run(2)
    assert first.net.resizes
    assert lying_alike(first.net, first.net.optimizers[0])
    gone_on = run(3)
    assert lying_alike(gone_on.net, gone_on.net.optimizers[0])


def test_a_forward_of_ones_own_may_count_on_the_order(data: Data) -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4 * 14 * 14, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(torch.relu(self.first(x)).view(len(x), -1))
            return result

    run = sizer.fit(Written(), data, create("shrinknets", 1e-3), epochs=1)
    assert run.net.widths
    assert run.status == "complete"


def test_strided_convolutions_of_1_x_1_are_let_be() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, stride=2))
    layout.channels_last(module)
    assert module[0].weight.is_contiguous()
    layout.channels_last(module[:1])
    assert not module[0].weight.is_contiguous()


def test_values_stay_and_only_kernels_move() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    layout.channels_last(module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert [p.stride(1) for p in module.parameters() if p.dim() == 4] == [1, 1]
    assert module[3].weight.is_contiguous()
