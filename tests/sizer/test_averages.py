"""An average of the weights, kept beside the network, is resized with it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sizer
from sizer import InputError
from sizer.methods import create
from tests.sizer.loops import X, adam, attach, convolutional, equal, shapes, step


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("method", "buffers"), [("shrinknets", True), ("auto-sizing", False)])
def test_an_average_follows_and_goes_on_and_is_plain_in_the_end(method: str, buffers: bool) -> None:
    net = attach(convolutional(), method)
    ema = get_ema_multi_avg_fn(0.9)
    average = net.follow(AveragedModel(net.module, multi_avg_fn=ema, use_buffers=buffers))
    twin = net.follow(copy.deepcopy(net.module))
    optimizer = adam(net)
    for at in range(4):
        step(net, optimizer)
        average.update_parameters(net.module)
        if at % 2:
            net.remove("3", [1, 4])
        else:
            net.grow("0", 3)
            net.grow("3", 2)
        assert shapes(average.module) == shapes(twin) == shapes(net.module)
    average.eval()
    before, twins, own = average(X), twin.eval()(X), net.module.eval()(X)
    assert not equal(before, own)
    states = net.plain_state(average), net.plain_state(twin), net.plain_state()
    net.finish()
    for module, output, state in zip(
        (average.module, twin, net.module), (before, twins, own), states, strict=True
    ):  # each is plain, with its own outputs
        assert equal(module(X), output)
        plain = convolutional_of(state)
        plain.load_state_dict(state)
        assert equal(plain.eval()(X), output)
        assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    average.update_parameters(net.module)


def convolutional_of(state: dict[str, Tensor]) -> nn.Module:
    first, second = len(state["0.bias"]), len(state["3.bias"])
    module = convolutional()
    module[0], module[1], module[3] = nn.Conv2d(1, first, 3), nn.BatchNorm2d(first), nn.Conv2d(first, second, 3)
    module[6] = nn.Linear(second * 16, 7)
    return module


def test_averages_of_units_that_stay_keep_their_values_and_new_units_are_the_networks() -> None:
    net = attach(convolutional())
    average = net.follow(AveragedModel(net.module))
    optimizer = adam(net)
    for _ in range(3):
        step(net, optimizer)
        average.update_parameters(net.module)
    before = average.module[3].weight.clone()
    net.remove("3", [0, 2])
    assert torch.equal(average.module[3].weight, before[[1, 3, 4]])
    net.grow("3", 2)
    assert torch.equal(average.module[3].weight[:3], before[[1, 3, 4]])
    assert torch.equal(average.module[3].weight[3:], net.module[3].weight[3:])
    assert not torch.equal(average.module[3].weight[:3], net.module[3].weight[:3])


def test_the_constant_of_a_removed_unit_stays_in_the_average_too() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Sigmoid(), nn.Linear(6, 3))
    net = attach(module, "auto-sizing")
    average = net.follow(AveragedModel(module))
    with torch.no_grad():
        for parameter in (module[1].weight, module[1].bias, average.module[1].weight, average.module[1].bias):
            parameter[:2] = 0
        average.module[3].weight.mul_(1.5)
    before = average(X)
    net.drop({net.groups[0]: torch.arange(6) < 2})
    assert net.widths == {"1": 4}
    assert equal(average(X), before)


def test_dead_units_that_stay_for_a_round_width_keep_their_constant_once() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Sigmoid(), nn.Linear(12, 3))
    net = sizer.attach(module, X, create("auto-sizing", 1e-3), round_to=4)
    with torch.no_grad():
        module[1].weight[:6] = 0
        module[1].bias[:6] = 0
    before = module(X)
    for dead, width in ((3, 12), (6, 8)):
        net.drop({net.groups[0]: torch.arange(12) < dead})
        assert net.widths == {"1": width}
        assert equal(module(X), before)


def test_a_copy_that_does_not_follow_keeps_widths_and_outputs_and_is_averaged_no_more() -> None:
    net = attach(convolutional())
    average = AveragedModel(net.module)
    average.update_parameters(net.module)
    before = average(X)
    net.remove("3", [0])
    assert equal(average(X), before)
    with pytest.raises(RuntimeError, match="size"):
        average.update_parameters(net.module)


def test_what_is_no_copy_of_the_network_is_refused() -> None:
    module = convolutional()
    early = copy.deepcopy(module)
    net = attach(module)
    with pytest.raises(InputError, match=r"'0.sizer_gate.theta' is missing there and \(6,\) here; copy it after"):
        net.follow(early)
    with pytest.raises(InputError, match="give follow\\(\\) a copy of it"):
        net.follow(module)
