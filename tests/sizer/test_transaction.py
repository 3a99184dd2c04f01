"""A resize is whole or not at all: one that fails half way leaves network and optimiser bit for bit as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import sizer
from sizer import Net
from sizer.groups import Slot
from sizer.methods import create


class Stop(Exception):
    """What fails."""


class Failing(dict[Any, Any]):
    """An optimiser's state that cannot be set the third time."""

    sets = 0

    def __setitem__(self, key: Any, value: Any) -> None:
        self.sets += 1
        if self.sets == 3:
            raise Stop
        super().__setitem__(key, value)


class Told(nn.Linear):
    """A layer that once will not be told its size."""

    armed = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "out_features" and self.armed:
            object.__setattr__(self, "armed", False)
            raise Stop
        super().__setattr__(name, value)


def step(net: Net, x: Tensor, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()


def everything(net: Net, optimizer: Optimizer) -> dict[str, Any]:
    """Each value of the network, its gradients and its optimiser, and which tensor stands where."""
    found: dict[str, Any] = {f"width {name}": width for name, width in net.widths.items()}
    for path, module in net.module.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, int) and name != "armed":
                found[f"attribute {path}.{name}"] = value
    for name, tensor in net.module.state_dict(keep_vars=True).items():
        found[name], found[f"id {name}"] = tensor.detach().clone(), id(tensor)
        found[f"grad {name}"] = None if tensor.grad is None else tensor.grad.clone()
        for key, value in optimizer.state.get(tensor, {}).items():
            found[f"state {name} {key}"] = value.clone() if isinstance(value, Tensor) else value
    found["trained"] = [id(p) for options in optimizer.param_groups for p in options["params"]]
    found["known"] = sorted(id(p) for p in optimizer.state)
    return found


@pytest.mark.parametrize("fails", ["fill", "state", "attribute"])
def test_a_resize_that_fails_half_way_changes_nothing(fails: str) -> None:
    torch.manual_seed(0)
    last = Told(12, 4)
    module = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 3, 3), nn.Flatten(), last, nn.Linear(4, 2)
    )
    x = torch.randn(4, 2, 6, 6)
    net = sizer.attach(module, x, create("shrinknets", 1e-3))
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    step(net, x, optimizer)
    step(net, x, optimizer)
    before, calls = everything(net, optimizer), 0

    def fill(slot: Slot, entries: Tensor) -> None:
        nonlocal calls
        calls += 1
        if fails == "fill" and calls == 5:
            raise Stop

    if fails == "state":
        optimizer.state = Failing(optimizer.state)  # type: ignore[assignment]  # any mapping will do
    object.__setattr__(last, "armed", fails == "attribute")
    with pytest.raises(Stop):
        net.grow_all(dict.fromkeys(net.groups, 2), fill)
    object.__setattr__(last, "armed", False)
    after = everything(net, optimizer)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, key
    assert net.resizes == 0
    net.grow_all(dict.fromkeys(net.groups, 2), fill)
    step(net, x, optimizer)
    assert net.widths == {"0": 8, "3": 5, "5": 6}
