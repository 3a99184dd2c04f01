"""A user's own optimisers and schedulers follow each resize, or are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

import sizer
from sizer import InputError
from sizer.methods import create
from tests.sizer.loops import X, adam, attach, convolutional, step


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_frozen_parameters_stay_frozen_and_their_units_may_go() -> None:
    module = convolutional()
    for parameter in module[3].parameters():
        parameter.requires_grad = False
    net = attach(module)
    optimizer = adam(net)
    before = module[3].weight.clone()
    step(net, optimizer)
    net.remove("3", [1])
    step(net, optimizer)
    assert [parameter.requires_grad for parameter in module[3].parameters() if parameter.dim() != 1] == [False]
    assert not module[3].bias.requires_grad
    assert torch.equal(module[3].weight, before[[0, 2, 3, 4]])
    assert module[0].weight.requires_grad


def test_frozen_and_ignored_layers_keep_their_width() -> None:
    module = convolutional()
    module[3].requires_grad_(False)
    net = sizer.attach(module, X, create("shrinknets", 1e-3), ignore=("3",))
    assert net.widths == {"0": 6, "6": 7}
    with pytest.raises(InputError, match="the width of '3' is fixed at 5: ignored, as asked"):
        net.remove("3", [0])


def earlier() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = convolutional()
    return module, torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)


def test_an_optimiser_from_before_gets_the_gates_as_a_group_and_trains_them() -> None:
    module, optimizer = earlier()
    net = attach(module, start="ones")
    assert net.track(optimizer) is optimizer
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(1e-3, 0.1), (1e-2, 0.0)]
    net.track(optimizer)
    assert len(optimizer.param_groups) == 2
    step(net, optimizer)
    net.remove("3", [0])
    step(net, optimizer)
    assert net.gates is not None
    assert all((theta != 1).all() for theta in net.gates.parameters())
    assert [len(g["params"]) for g in optimizer.param_groups] == [10, 3]


SCHEDULES: dict[str, Any] = {
    "cosine": lambda optimizer: schedules.CosineAnnealingLR(optimizer, 10),
    "lambda": lambda optimizer: schedules.LambdaLR(optimizer, lambda epoch: 0.5**epoch),
    "warm-up": lambda optimizer: schedules.SequentialLR(
        optimizer, [schedules.LinearLR(optimizer), schedules.StepLR(optimizer, 1)], [2]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_scheduler_made_after_track_moves_both_rates_alike_and_one_made_before_is_refused(name: str) -> None:
    module, optimizer = earlier()
    net = attach(module)
    net.track(optimizer)
    scheduler = SCHEDULES[name](optimizer)
    rates = set()
    for _ in range(3):
        step(net, optimizer)
        net.grow("3", 1)
        scheduler.step()
        slow, fast = (group["lr"] for group in optimizer.param_groups)
        assert fast == pytest.approx(10 * slow)
        rates.add(slow)
    assert len(rates) == 3

    module, optimizer = earlier()
    SCHEDULES[name](optimizer)
    with pytest.raises(InputError, match=r"has a scheduler already, .*; make the scheduler after net\.track"):
        attach(module).track(optimizer)
    assert len(optimizer.param_groups) == 1
    module, optimizer = earlier()
    SCHEDULES[name](optimizer)
    attach(module, "auto-sizing").track(optimizer)  # which has no gates


def test_optimisers_that_cannot_follow_are_refused() -> None:
    net = attach(convolutional(), "auto-sizing")
    with pytest.raises(InputError, match="LBFGS keeps all parameters as one vector"):
        net.track(torch.optim.LBFGS(net.module.parameters()))
    with pytest.raises(InputError, match=r"this Adam trains no parameter of the network; make it of net\.param_groups"):
        net.track(torch.optim.Adam(convolutional().parameters()))


def test_state_of_rows_and_columns_follows_too() -> None:
    net = attach(convolutional())
    optimizer = net.track(torch.optim.Adafactor(net.param_groups(1e-2)))
    step(net, optimizer)
    weight = net.module[6].weight
    rows, columns = optimizer.state[weight]["row_var"].clone(), optimizer.state[weight]["col_var"].clone()
    net.remove("3", [0])
    net.grow("6", 2)
    state = optimizer.state[net.module[6].weight]
    assert torch.equal(state["row_var"][:7], rows)
    assert state["row_var"].shape == (9, 1)
    assert torch.equal(state["col_var"], columns[:, 16:])
    step(net, optimizer)
