"""ShrinkNets: the filter of eq. 1, the penalty of eq. 2, and the proximal step in the optimiser's own metric."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

import sizer
from sizer import InputError, Net
from sizer.methods import create
from tests.sizer.digit_images import digits


def small(knob: float, **settings: object) -> Net:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    return sizer.attach(module, torch.randn(4, 3), create("shrinknets", knob, **settings))


def thetas(net: Net) -> list[torch.Tensor]:
    assert net.gates is not None
    return [parameter.detach() for parameter in net.gates.parameters()]


@pytest.mark.parametrize("samples", [1, 50])
def test_a_gate_multiplies_what_is_read_of_a_layer_by_theta_above_zero(samples: int) -> None:
    net = small(1e-3, start="ones")
    x = torch.randn(samples, 3)  # few samples are multiplied themselves, for many the weight is
    factors = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 1.0])
    thetas(net)[0][:] = factors
    _, relu1, second, relu2, out = net.module
    with torch.no_grad():
        units = relu1(net.module[0](x)) * factors.relu()
        expected = out(relu2(units @ second.weight.T + second.bias))
        assert torch.allclose(net(x), expected, atol=1e-6)


def test_theta_begins_uniform_or_at_one() -> None:
    uniform = torch.cat(thetas(small(1e-3)))
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.std() > 0.1
    assert all((theta == 1).all() for theta in thetas(small(1e-3, start="ones")))


def test_the_penalty_is_lambda_times_all_open_gates_for_the_papers_rule_and_nothing_for_the_proximal_one() -> None:
    net = small(0.5, rule="subgradient", start="ones")
    thetas(net)[0][0] = -3.0
    assert float(net.penalty().detach()) == pytest.approx(0.5 * (5 + 5))
    assert float(small(0.5).penalty()) == 0.0


def test_gates_learn_at_ten_times_the_rate_and_without_weight_decay() -> None:
    rates = [(group["lr"], group["weight_decay"]) for group in small(1e-3).param_groups(1e-3, weight_decay=0.1)]
    assert rates == [(1e-3, 0.1), (1e-2, 0.0)]
    rates = [(group["lr"], group["weight_decay"]) for group in small(1e-3, rule="subgradient").param_groups(1e-3, 0.1)]
    assert rates == [(1e-3, 0.1), (1e-3, 0.0)]


def step(net: Net, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    net(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    net.after_step()


@pytest.mark.parametrize("fused", [True, False])
def test_the_proximal_step_subtracts_lambda_in_the_metric_of_adam(fused: bool) -> None:
    net = small(1e-2, ramp=0.0, start="ones")
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3), fused=fused))
    twin = small(1e-2, ramp=0.0, start="ones")
    reference = torch.optim.Adam(twin.param_groups(1e-3), fused=fused)
    for at in range(3):
        torch.manual_seed(at)
        step(net, optimizer)
        torch.manual_seed(at)
        reference.zero_grad()
        twin(torch.randn(4, 3)).square().sum().backward()
        reference.step()
        for theta, parameter in zip(thetas(twin), twin.gates.parameters(), strict=True):  # type: ignore[union-attr]  # it has gates
            state = reference.state[parameter]
            v = state["exp_avg_sq"] / (1 - 0.999 ** (at + 1))
            theta.sub_(1e-2 * 1e-2 / (v.sqrt() + 1e-8)).clamp_(min=0)
    for theta, expected in zip(thetas(net), thetas(twin), strict=True):
        assert torch.allclose(theta, expected, atol=1e-6)


def test_plain_gradient_descent_has_no_metric_of_its_own() -> None:
    net = small(0.1, ramp=0.0, start="ones")
    optimizer = net.track(torch.optim.SGD(net.param_groups(0.0 + 1e-9)))
    before = [theta.clone() for theta in thetas(net)]
    optimizer.param_groups[1]["lr"] = 0.5
    net.after_step()
    for theta, old in zip(thetas(net), before, strict=True):
        assert torch.allclose(theta, old - 0.05)


def test_a_closed_gate_stays_closed_whatever_momentum_it_had() -> None:
    net = small(1e-9, ramp=0.0, start="ones", check_every=10**6)
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-1)))
    for _ in range(5):
        step(net, optimizer)
    assert net.gates is not None
    for gate in net.gates.by_group.values():
        gate.theta.detach()[1] = 0
        gate.alive[1] = False
        optimizer.state[gate.theta]["exp_avg"][1] = -100.0
    for _ in range(5):
        step(net, optimizer)
        assert all(theta[1] == 0 for theta in thetas(net))


def test_lambda_rises_over_the_ramp_and_waits_for_the_length_of_an_epoch() -> None:
    net = small(1e-2, ramp=2.0, start="ones")
    optimizer = net.track(torch.optim.SGD(net.param_groups(1e-9)))
    optimizer.param_groups[1]["lr"] = 1.0
    net.before_epoch()
    for _ in range(4):
        net.after_step()
    assert all((theta == 1).all() for theta in thetas(net))
    net.after_epoch()
    net.before_epoch()
    falls = []
    for _ in range(6):
        before = float(thetas(net)[0][0])
        net.after_step()
        falls.append(before - float(thetas(net)[0][0]))
    assert falls == pytest.approx([1e-2 * s / 8 for s in (5, 6, 7, 8, 8, 8)], rel=1e-3)


def test_units_go_on_the_way_as_soon_as_enough_gates_are_closed() -> None:
    net = small(1e-9, ramp=0.0, start="ones", check_every=3, share=0.2)
    optimizer = net.track(torch.optim.SGD(net.param_groups(1e-9)))
    thetas(net)[0][0] = 0.0
    for _ in range(3):
        step(net, optimizer)
    assert net.widths == {"0": 6, "2": 5}  # one of six is no more than the share
    thetas(net)[0][1] = 0.0
    step(net, optimizer)
    assert net.widths == {"0": 6, "2": 5}
    for _ in range(2):
        step(net, optimizer)
    assert net.widths == {"0": 4, "2": 5}


def test_without_its_optimiser_the_proximal_rule_says_what_to_do() -> None:
    net = small(1e-3)
    torch.optim.Adam(net.param_groups(1e-3))
    with pytest.raises(InputError, match=r"net\.track"):
        net.after_step()


def test_widths_only_fall_and_accuracy_survives_on_digits() -> None:
    data = digits(samples=1200)
    torch.manual_seed(0)
    module = sizer.networks.build("mlp", data.input_shape, data.outputs, [100, 100])
    run = sizer.fit(module, data, create("shrinknets", 1e-2), epochs=25, batch_size=32)
    units = [sum(epoch.widths.values()) for epoch in run.history]
    assert all(later <= earlier for earlier, later in pairwise(units))
    assert units[-1] < 0.7 * 200
    assert run.best is not None
    assert run.best.test_accuracy > 0.95


@pytest.mark.parametrize(
    ("knob", "settings"),
    [(0.0, {}), (-0.1, {}), (float("nan"), {}), (1e-3, {"rule": "proximal2"}), (1e-3, {"share": 2}), (1e-3, {"x": 1})],
)
def test_values_out_of_range_are_refused(knob: float, settings: dict[str, object]) -> None:
    with pytest.raises(InputError):
        create("shrinknets", knob, **settings)
