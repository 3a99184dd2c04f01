"""Dynamic auto-sizing computes what its authors computed, and grows and removes as Algorithm 1 says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sizer
from sizer import InputError
from sizer.methods import create
from sizer.methods.auto_sizing import PENALTIES, Weighting, weighting
from tests.sizer.digit_images import digits

W = torch.arange(1.0, 13.0).view(3, 4)
"""The authors' check matrix, inputs x units."""


@pytest.mark.parametrize(("name", "value"), [("weighted-l1", 21.0), ("l2,1", 5.05220), ("l1", 7.8)])
def test_penalties_have_the_authors_check_values(name: str, value: float) -> None:
    assert 0.1 * float(PENALTIES[name]([W.T], weighting("linear"))) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weighted-l1", 1 * (1 + 2) + 2 * (2 + 3 + 1)),  # units (1, -2 | 0) and (-2, 3 | 1)
        ("l2,1", 5**0.5 + 14**0.5),
        ("linf,1", 2 + 3),
        ("l1", 3 + 6),
        ("none", 0),
    ],
)
def test_penalties_of_weights_and_a_bias_computed_by_hand(name: str, value: float) -> None:
    weights = [torch.tensor([[1.0, -2.0], [-2.0, 3.0]]), torch.tensor([[0.0], [1.0]])]
    assert float(PENALTIES[name](weights, weighting("linear"))) == pytest.approx(value)


@pytest.mark.parametrize(
    ("f", "value"),
    [("linear", 14), ("sqrt", 1 + 2**0.5 * 2 + 3**0.5 * 3), ("square", 36), (lambda j: 5 * j, 70), ("log", None)],
)
def test_the_weight_of_a_unit_follows_f(f: str | Weighting, value: float | None) -> None:
    module = nn.Sequential(nn.Linear(1, 3, bias=False), nn.SELU(), nn.Linear(3, 2))
    net = sizer.attach(module, torch.randn(2, 1), create("auto-sizing", 1.0, f=f))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    wanted = math.log(2) + math.log(3) * 2 + math.log(4) * 3 if value is None else value
    assert float(net.penalty().detach()) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"f": "cubic"}, "unknown f of auto-sizing 'cubic'; there are: linear, square, log, sqrt"),
        ({"f": lambda j: (j - 3).abs() - 3}, r"f must not decrease, got f\(0\) = 0 and f\(1\) = -1"),
        ({"f": lambda j: j + 1}, r"f must be 0 at 0, got f\(0\) = 1; subtract it"),
        ({"f": lambda j: j / (j - 7)}, "f must be finite, got inf"),
        ({"f": lambda j: 1.0}, "f must give a weight for each of the positions that it is given, got 1.0"),
        ({"f": "sqrt", "penalty": "l1"}, "f weighs the units of weighted-l1, and l1 has no such weights"),
    ],
)
def test_an_f_that_will_not_do_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create("auto-sizing", 1e-5, **settings)


@pytest.mark.parametrize("penalty", sorted(PENALTIES))
def test_growth_and_pruning_are_switched_off_one_by_one(penalty: str) -> None:
    for growth, pruning in ((False, False), (True, False), (False, True)):
        module = nn.Sequential(nn.Linear(3, 5), nn.SELU(), nn.Linear(5, 2))
        settings = {"pruning": pruning} if growth else {"pruning": pruning, "growth": 0.0, "min_growth": 0}
        net = sizer.attach(module, torch.randn(2, 3), create("auto-sizing", 0.1, penalty=penalty, **settings))
        with torch.no_grad():
            module[0].weight[1] = 0
            module[0].bias[1] = 0
        net.before_epoch()
        (net.penalty() + module[2].bias.sum()).backward()
        assert all(bool(p.grad.isfinite().all()) for p in module.parameters() if p.grad is not None)
        net.after_epoch()
        assert net.widths["0"] == 5 + 20 * growth - pruning


def test_the_bias_counts_and_the_output_layer_does_not() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.SELU(), nn.Linear(4, 2))
    net = sizer.attach(module, torch.randn(2, 3), create("auto-sizing", 0.1))
    with torch.no_grad():
        module[0].weight.copy_(W.T)
        module[0].bias.fill_(1)
        module[2].weight.fill_(100)
    assert float(net.penalty().detach()) == pytest.approx(21.0 + 0.1 * (1 + 2 + 3 + 4))


def test_each_epoch_grows_by_a_fifth_and_at_least_by_twenty_small_units_at_the_end() -> None:
    module = nn.Sequential(nn.Linear(3, 200), nn.SELU(), nn.Linear(200, 10), nn.SELU(), nn.Linear(10, 2))
    net = sizer.attach(module, torch.randn(2, 3), create("auto-sizing", 0.1))
    before = module[0].weight.detach().clone()
    net.before_epoch()
    assert net.widths == {"0": 240, "2": 30}
    assert torch.equal(module[0].weight[:200], before)
    assert 0 < module[0].weight[200:].abs().max() < 5e-3
    assert not module[0].bias[200:].any()
    assert 0 < module[2].weight[:, 200:].abs().max() < 5e-3


def test_units_all_of_whose_parameters_are_below_the_threshold_go() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.SELU(), nn.Linear(5, 2))
    net = sizer.attach(module, torch.randn(2, 3), create("auto-sizing", 0.1))
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.zero_()
        module[0].weight[1] = 9e-4
        module[0].weight[3] = 9e-4
        module[0].bias[3] = 2e-3
    net.after_epoch()
    assert module[0].weight.shape == (4, 3)
    assert module[0].bias.tolist() == pytest.approx([0, 0, 2e-3, 0])


def test_the_second_half_is_static() -> None:
    data = digits()
    torch.manual_seed(0)
    module = sizer.networks.build("mlp", data.input_shape, data.outputs, [20])
    history = sizer.fit(module, data, create("auto-sizing", 1e-6), epochs=5, batch_size=64, learning_rate=4e-4).history
    widths = [epoch.widths["dense1"] for epoch in history]
    assert widths[0] > 20
    assert widths[2] == widths[3] == widths[4]


def test_a_normalised_unit_is_small_when_its_scale_and_shift_are() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net = sizer.attach(module, torch.randn(4, 3), create("auto-sizing", 0.1))
    with torch.no_grad():
        module[0].weight[0] = 1e-5  # the normalisation gives it full size again
        module[0].bias[0] = 0
        module[1].weight[2] = 1e-5
    net.after_epoch()
    assert net.widths == {"0": 3}
    assert module[0].weight[0].abs().max() <= 1e-5


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"growth": -1}, {"fine_tuning": 1}, {"penalty": "l3"}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        create("auto-sizing", 0.1, **settings)
