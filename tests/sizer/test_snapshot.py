"""A network that is brought back is what it was, bit for bit, and trains on as it would have."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import Net, snapshot
from sizer.methods import create

X = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def attached(method: str = "shrinknets") -> Net:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.PReLU(5), nn.Flatten(),
        nn.Linear(80, 7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip
    module.register_buffer("seen", torch.zeros(3), persistent=False)
    return sizer.attach(module, X, create(method, 1e-3))


def optimizer_of(name: str, net: Net) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    return net.track(getattr(torch.optim, name)(net.param_groups(1e-2), **options))


def train(net: Net, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(X).square().sum().backward()
        optimizer.step()


def everything(net: Net) -> dict[str, Tensor]:
    """All that ``restore`` brings back, and whose parameter each state is."""
    result: dict[str, Tensor] = {}
    for at, module in enumerate([net.module, *net.copies]):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            result[f"{at}/{name}"] = value.detach().clone()
    for at, optimizer in enumerate(net.optimizers):
        for name, parameter in net.module.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                result[f"optimizer {at}/{name}/{key}"] = torch.as_tensor(value if value is not None else -1).clone()
    return result


def assert_equal(after: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name


def shrink(net: Net) -> None:
    net.remove_all({layer: range(width // 2) for layer, width in net.widths.items()})


def enlarge(net: Net) -> None:
    for layer in net.widths:
        net.grow(layer, 3)


def both(net: Net) -> None:
    net.remove("0", [0, 2])
    net.grow("3", 2)


@pytest.mark.parametrize("change", [shrink, enlarge, both])
@pytest.mark.parametrize("name", ["Adam", "SGD", "Adafactor", "NAdam"])
def test_weights_gates_buffers_and_optimiser_come_back_bit_for_bit(name: str, change: Any) -> None:
    net = attached()
    optimizer = optimizer_of(name, net)
    net.follow(copy.deepcopy(net.module))
    train(net, optimizer)
    held, before, widths = snapshot.take(net), everything(net), net.widths
    change(net)
    train(net, optimizer)
    net.collapsed.append("0")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    snapshot.restore(net, held)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.widths == widths
    assert net.collapsed == []
    assert_equal(everything(net), before)
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert listed == {id(p) for p in net.module.parameters()}


def test_training_goes_on_as_if_nothing_had_been() -> None:
    ends = []
    for detour in (False, True):
        net = attached()
        optimizer = optimizer_of("Adam", net)
        train(net, optimizer)
        if detour:
            held = snapshot.take(net)
            shrink(net)
            train(net, optimizer)
            snapshot.restore(net, held)
        train(net, optimizer)
        ends.append(everything(net))
    assert_equal(ends[1], ends[0])


def test_a_state_that_began_after_the_snapshot_is_forgotten() -> None:
    net = attached()
    optimizer = optimizer_of("Adam", net)
    held = snapshot.take(net)
    train(net, optimizer)
    snapshot.restore(net, held)
    assert not optimizer.state


def test_a_snapshot_can_be_restored_twice() -> None:
    net = attached()
    optimizer = optimizer_of("Adam", net)
    train(net, optimizer)
    held, before = snapshot.take(net), everything(net)
    for change in (shrink, enlarge):
        change(net)
        train(net, optimizer)
        snapshot.restore(net, held)
        assert_equal(everything(net), before)
        train(net, optimizer)
        snapshot.restore(net, held)
        assert_equal(everything(net), before)
