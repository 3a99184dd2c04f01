"""Group sparsity's proximal step solves its problem, with the optimiser's own step, and zero units go."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import sizer
from sizer import InputError, Net
from sizer.methods import create
from sizer.methods.group_sparsity import prox
from tests.sizer.digit_images import digits


def solved(v: Tensor, ball: float, box: float) -> Tensor:
    """The x of least ``||x - v||^2 / 2 + ball ||x||_2 + box ||x||_1``, to 1e-8, without the closed form.

    By accelerated projected gradient on the dual, which looks for u with ``||u||_2 <= ball`` and s with
    ``|s_i| <= box`` that leave the least of ``v - u - s``. The duality gap says how far x can be from the answer.
    """
    u, s = torch.zeros_like(v), torch.zeros_like(v)
    ahead, momentum = (u, s), 1.0
    for _ in range(100_000):
        left = v - ahead[0] - ahead[1]
        new = ahead[0] + left / 2
        new = new * min(1.0, ball / max(float(new.norm()), 1e-300))
        other = (ahead[1] + left / 2).clamp(-box, box)
        if float(((ahead[0] - new) * (new - u)).sum() + ((ahead[1] - other) * (other - s)).sum()) > 0:
            momentum = 1.0
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = tuple(a + (momentum - 1) / grown * (a - b) for a, b in ((new, u), (other, s)))
        u, s, momentum = new, other, grown
        x = v - u - s
        gap = float(ball * x.norm() - u @ x + box * x.abs().sum() - s @ x)
        if gap < 5e-15:
            return x
    raise AssertionError(f"no answer: a gap of {gap}")


@settings(max_examples=60, deadline=None)
@given(
    theta=arrays.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=st.floats(-3, 3)),
    step=st.floats(1e-3, 2),
    weight=st.floats(1e-3, 2),
    mixing=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_the_proximal_step_is_what_a_solver_finds(theta: np.ndarray, step: float, weight: float, mixing: float) -> None:
    units = torch.from_numpy(theta)
    found = prox(units, step, weight, mixing)
    for unit, x in zip(units, found, strict=True):
        answer = solved(unit, step * (1 - mixing) * weight * len(unit) ** 0.5, step * mixing * weight)
        assert (x - answer).abs().max() < 1e-6


def test_each_unit_has_its_own_step_and_those_that_reach_zero_are_exactly_zero() -> None:
    theta = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    found = prox(theta, torch.tensor([1.0, 6.0, 1.0]), 0.5, 0.0)
    torch.testing.assert_close(found[0], theta[0] * (1 - 0.5 * 2**0.5 / 5))
    assert prox(theta, torch.tensor([1.0, 8.0, 1.0]), 0.5, 0.0)[1:].eq(0).all()
    assert torch.equal(prox(theta, 0.0, 0.5, 0.5), theta)
    for mixing in (0.0, 0.5, 1.0):
        assert prox(theta, torch.tensor([torch.inf] * 3), 0.5, mixing).eq(0).all()


OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, dampening=0.5),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def small(value: float = 0.1, **given: Any) -> tuple[nn.Sequential, Net]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    return module, sizer.attach(module, torch.randn(2, 3), create("group-sparsity", value, **given))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_step_sizes_are_how_far_the_optimiser_goes(name: str) -> None:
    module, net = small()
    weight = module[0].weight
    optimizer = net.track(OPTIMISERS[name]([weight, module[2].weight]))
    gradient = torch.rand_like(weight) + 0.1
    for _ in range(400):
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
    found = net.step_sizes(module.parameters())
    assert set(found) == {weight, module[2].weight}
    rate, scale = found[weight]
    torch.testing.assert_close(before - weight.detach(), rate * gradient / scale, rtol=2e-3, atol=1e-6)


def vectors(module: nn.Sequential, at: int) -> Tensor:
    return torch.cat([module[at].weight, module[at].bias[:, None]], 1).detach().clone()


def test_a_step_of_gradient_descent_is_followed_by_the_closed_form() -> None:
    module, net = small(mixing=0.5, first_layers=0)
    optimizer = net.track(torch.optim.SGD(net.param_groups(0.05), momentum=0.5))
    F.mse_loss(net(torch.randn(8, 3)), torch.randn(8, 2)).backward()
    optimizer.step()
    before, out = {at: vectors(module, at) for at in (0, 2)}, vectors(module, 4)
    net.after_step()
    for at in (0, 2):
        torch.testing.assert_close(vectors(module, at), prox(before[at], 0.1, 0.1, 0.5))
    assert torch.equal(vectors(module, 4), out)


def test_with_adam_a_unit_has_the_step_of_its_mean_second_moment() -> None:
    module, net = small(first_layers=0)
    torch.nn.init.constant_(module[0].bias, 3.0)  # no unit without a gradient
    optimizer = net.track(torch.optim.Adam(net.param_groups(0.01), betas=(0.9, 0.99)))
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(net(torch.randn(8, 3)), torch.randn(8, 2)).backward()
        optimizer.step()
    moments = [optimizer.state[p]["exp_avg_sq"] / (1 - 0.99**3) for p in (module[0].weight, module[0].bias)]
    step = 0.01 / (torch.cat([moments[0], moments[1][:, None]], 1).mean(1).sqrt() + 1e-8)
    before = vectors(module, 0)
    net.after_step()
    torch.testing.assert_close(vectors(module, 0), prox(before, step, 0.1, 0.0))


def test_a_unit_that_no_sample_has_reached_yet_is_not_removed_for_that() -> None:
    module, net = small(1e-3)
    torch.nn.init.constant_(module[0].bias, 3.0)
    with torch.no_grad():
        module[0].bias[2] = -50.0
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    F.mse_loss(net(torch.randn(8, 3)), torch.randn(8, 2)).backward()
    optimizer.step()
    before = vectors(module, 0)
    net.after_step()
    assert not optimizer.state[module[0].weight]["exp_avg_sq"][2].any()
    assert (vectors(module, 0)[2] / before[2]).min() > 0.9


def test_the_first_layers_have_their_share_of_lambda() -> None:
    for first, share in ((0, 1.0), (1, 0.4), (2, 0.4)):
        module, net = small(first_layers=first, first_weight=0.4)
        net.track(torch.optim.SGD(net.param_groups(0.1)))
        before = {at: vectors(module, at) for at in (0, 2)}
        net.after_step()
        for index, at in enumerate((0, 2)):
            weight = 0.1 * (share if index < first else 1.0)
            torch.testing.assert_close(vectors(module, at), prox(before[at], 0.1, weight, 0.0))


def test_more_first_layers_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="first_layers is 3, but the network has 2 layers that can be sized"):
        small(first_layers=3)


class Residual(nn.Module):
    """Two layers write one sum; a normalisation follows the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4)
        self.second, self.out = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(torch.relu(self.norm(self.first(x)) + self.second(x)))
        return result


def test_a_unit_is_all_that_writes_it_normalisations_too_and_goes_as_one() -> None:
    torch.manual_seed(0)
    module = Residual()
    net = sizer.attach(module, torch.randn(4, 3), create("group-sparsity", 1.0, first_layers=0))
    net.track(torch.optim.SGD(net.param_groups(0.1)))
    of_unit = (module.first.weight, module.norm.weight, module.norm.bias, module.second.weight, module.second.bias)

    def whole() -> Tensor:
        return torch.cat([p.detach().reshape(4, -1).clone() for p in of_unit], 1)

    before = whole()
    net.after_step()
    assert before.shape == (4, 9)
    torch.testing.assert_close(whole(), prox(before, 0.1, 1.0, 0.0))
    with torch.no_grad():
        for p in of_unit:
            p[2] /= 1000
    net.after_step()
    net.after_epoch()
    assert net.widths == {"first": 3}


def test_what_is_frozen_stays_and_the_rest_of_its_unit_shrinks() -> None:
    module, net = small(10.0)
    module[0].weight.requires_grad_(False)
    frozen = module[0].weight.clone()
    net.track(torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1))
    net.after_step()
    net.after_epoch()
    assert torch.equal(module[0].weight, frozen)
    assert not module[0].bias.any()


def zeroed(module: nn.Sequential) -> None:
    """Units 1 and 3 of the first layer are zero, and unit 0 of the second reads no other."""
    with torch.no_grad():
        module[0].weight[[1, 3]] = module[0].bias[[1, 3]] = 0
        module[2].weight[0, [0, 2, 4]] = 0
        module[2].bias[0] = 0.3


def test_zero_units_and_those_that_they_alone_feed_are_removed_and_the_outputs_stay() -> None:
    module, net = small()
    zeroed(module)
    x = torch.randn(20, 3)
    before = net(x).detach()
    net.after_epoch()
    assert net.widths == {"0": 3, "2": 3}
    assert (net(x) - before).abs().max() < 1e-6


def test_units_go_on_the_way_once_their_share_is_large_enough() -> None:
    for share, left in ((0.3, 3), (0.4, 5)):
        module, net = small(1e-9, check_every=2, share=share)
        net.track(torch.optim.SGD(net.param_groups(0.1)))
        zeroed(module)
        net.after_step()
        assert net.widths["0"] == 5
        net.after_step()
        assert net.widths["0"] == left


def test_after_training_units_go_at_the_end_of_the_last_epoch_or_in_finish() -> None:
    for epochs in (None, 2):
        module, net = small(1e-9, removal="after-training", check_every=1)
        net.track(torch.optim.SGD(net.param_groups(0.1)))
        net.epochs = epochs
        zeroed(module)
        for _ in range(2):
            assert net.widths == {"0": 5, "2": 4}
            net.before_epoch()
            net.after_step()
            net.after_epoch()
        assert net.widths == ({"0": 5, "2": 4} if epochs is None else {"0": 3, "2": 3})
        x = torch.randn(20, 3)
        before = net(x).detach()
        assert (net.finish()(x) - before).abs().max() < 1e-6
        assert net.widths == {"0": 3, "2": 3}


@pytest.mark.parametrize(("removal", "precision"), [("on-the-way", "bfloat16"), ("after-training", "float32")])
def test_training_ends_small_and_still_knows_its_digits(removal: str, precision: str) -> None:
    data = digits()
    torch.manual_seed(0)
    module = sizer.networks.build("mlp", data.input_shape, data.outputs, [40, 40])
    method = create("group-sparsity", 2e-2, removal=removal, mixing=0.5)
    run = sizer.fit(module, data, method, epochs=10, batch_size=16, learning_rate=5e-3, precision=precision)
    widths = [sum(epoch.widths.values()) for epoch in run.history]
    assert widths[-1] < 50
    assert widths[-2] < 55 if removal == "on-the-way" else widths[-2] == 80
    assert run.history[-1].val_accuracy > 0.85


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_larger_lambda_leaves_fewer_units(optimizer: str) -> None:
    data, units = digits(), []
    for value in (1e-3, 2e-2, 5e-2):
        total = 0
        for seed in range(3):
            torch.manual_seed(seed)
            module = sizer.networks.build("mlp", data.input_shape, data.outputs, [16, 12])
            run = sizer.fit(
                module, data, create("group-sparsity", value),
                epochs=4, batch_size=32, learning_rate=1e-2 if optimizer == "adam" else 3e-2, optimizer=optimizer,
                seed=seed,
            )  # fmt: skip
            total += sum(run.history[-1].widths.values())
        units.append(total)
    assert units[0] > units[1] > units[2]


def test_without_the_optimiser_it_says_so() -> None:
    net = small()[1]
    with pytest.raises(InputError, match="group-sparsity needs the optimiser that trains the network"):
        net.after_step()


def test_another_dimension_of_a_weight_may_hold_the_units() -> None:
    """A transposed convolution has its rows in the second one, two of its groups in one."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(2, 3, 2, groups=1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    net = sizer.attach(module, torch.randn(2, 2, 4, 4), create("group-sparsity", 0.5, first_layers=0))
    net.track(torch.optim.SGD(net.param_groups(0.1)))
    start = copy.deepcopy(module[0])
    net.after_step()
    whole = torch.cat([start.weight.transpose(0, 1).flatten(1), start.bias[:, None]], 1).detach()
    shrunk = prox(whole, 0.1, 0.5, 0.0)
    torch.testing.assert_close(module[0].weight.detach().transpose(0, 1).flatten(1), shrunk[:, :-1])


def test_units_that_stand_apart_in_a_weight_shrink_as_one() -> None:
    """Channels of a concatenation: a normalisation over both of its parts holds each part's units by index."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm, self.out = nn.Linear(3, 2), nn.Linear(3, 4), nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.out(torch.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1))))
            return result

    torch.manual_seed(0)
    module = Both()
    net = sizer.attach(module, torch.randn(4, 3), create("group-sparsity", 0.5, first_layers=0))
    net.track(torch.optim.SGD(net.param_groups(0.1)))
    start = copy.deepcopy(module)
    net.after_step()

    def whole(layer: nn.Linear, norm: nn.BatchNorm1d, where: slice) -> Tensor:
        parts = (layer.weight, layer.bias[:, None], norm.weight[where, None], norm.bias[where, None])
        return torch.cat(parts, 1).detach()

    for name, where in (("a", slice(0, 2)), ("b", slice(2, 6))):
        before = whole(getattr(start, name), start.norm, where)
        torch.testing.assert_close(whole(getattr(module, name), module.norm, where), prox(before, 0.1, 0.5, 0.0))


@pytest.mark.parametrize(
    "odd",
    [{"mixing": 1.5}, {"mixing": -0.1}, {"first_layers": -1}, {"first_weight": -1}, {"removal": "never"}, {"share": 1},
     {"check_every": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(odd))):
        create("group-sparsity", 0.1, **odd)
