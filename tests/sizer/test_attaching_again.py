"""A network that was sized, or trained before, is attached again."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizer import InputError, Net
from tests.sizer.digit_images import digits
from tests.sizer.loops import adam, attach, convolutional


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_network_is_attached_once_until_it_is_finished() -> None:
    module = convolutional()
    net = attach(module)
    with pytest.raises(InputError, match=r"attached already: use the net that attach\(\) gave, or finish\(\) it first"):
        attach(module, "auto-sizing")
    net.finish()
    net = attach(module, "auto-sizing")
    with pytest.raises(InputError, match="attached already"):
        attach(module)
    del net
    gc.collect()
    attach(module).finish()


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    data = digits(samples=500)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 30), nn.ReLU(),
        nn.Linear(30, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(data.x_train), data.y_train).backward()
        optimizer.step()
    return module, data.x_train, data.y_train


def widths_after(net: Net, x: Tensor, y: Tensor, knob: float) -> list[int]:
    """All units after five epochs, and after five more with another knob; the network still tells digits apart."""
    optimizer = adam(net, 4e-3)
    widths = []
    for epoch in range(10):
        if epoch == 5:
            widths.append(sum(net.widths.values()))
            net.knob = knob
        net.before_epoch()
        for at in range(0, len(x), 50):
            optimizer.zero_grad()
            (F.cross_entropy(net(x[at : at + 50]), y[at : at + 50]) + net.penalty()).backward()
            optimizer.step()
            net.after_step()
        net.after_epoch()
    assert (net(x).argmax(1) == y).float().mean() > 0.85
    return [*widths, sum(net.widths.values())]


@pytest.fixture(scope="module")
def model() -> tuple[nn.Module, Tensor, Tensor]:
    return trained()


GROWING = {"threshold": 1e-2, "min_growth": 4, "growth": 0.05}


@pytest.mark.parametrize(
    ("method", "low", "high", "settings"),
    [("shrinknets", 1e-3, 3e-2, {"start": "ones"}), ("auto-sizing", 1e-5, 1e-3, GROWING)],
)
def test_a_trained_network_begins_as_it_was_and_a_larger_knob_then_shrinks_it(
    model: tuple[nn.Module, Tensor, Tensor], method: str, low: float, high: float, settings: dict[str, Any]
) -> None:
    module, x, y = model
    own = F.cross_entropy(module(x), y).item()
    assert own < 0.2
    ends = []
    for then in (low, high):
        net = attach(copy.deepcopy(module), method, low, x[:8], **settings)
        assert F.cross_entropy(net(x), y).item() == pytest.approx(own, rel=1e-6)
        ends.append(widths_after(net, x, y, then)[-1])
    assert ends[1] < min(ends[0], 42)


def test_with_auto_sizing_a_smaller_knob_lets_it_grow_again(model: tuple[nn.Module, Tensor, Tensor]) -> None:
    module, x, y = model
    net = attach(copy.deepcopy(module), "auto-sizing", 1e-3, x[:8], **GROWING)
    before, after = widths_after(net, x, y, 1e-5)
    assert before < 42
    assert after > before


@pytest.mark.parametrize("value", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_knob_that_is_no_positive_number_is_refused_and_stays(value: float) -> None:
    net = attach(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3)))
    with pytest.raises(InputError, match="lambda must be a positive number, got"):
        net.knob = value
    assert net.knob == 1e-3
