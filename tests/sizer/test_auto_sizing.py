"""Dynamic auto-sizing computes what its authors computed, and grows and removes as Algorithm 1 says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sizer
from sizer import InputError
from sizer.methods import create
from sizer.methods.auto_sizing import PENALTIES
from tests.sizer.digit_images import digits

W = torch.arange(1.0, 13.0).view(3, 4)
"""The authors' check matrix, inputs x units."""


@pytest.mark.parametrize(("name", "value"), [("weighted-l1", 21.0), ("l2,1", 5.05220), ("l1", 7.8)])
def test_penalties_have_the_authors_check_values(name: str, value: float) -> None:
    assert 0.1 * float(PENALTIES[name]([W.T])) == pytest.approx(value, abs=1e-4)


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
