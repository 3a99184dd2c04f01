"""A unit whose gate is closed goes and leaves nothing; one that is constant is folded into its readers, or stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import InputError, Net
from sizer.methods import create
from tests.sizer.pieces import disturb

ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Softplus, nn.SELU, nn.Tanh, nn.Hardsigmoid)


def attached(module: nn.Module, x: Tensor, method: str = "shrinknets", **settings: int) -> Net:
    """A network in evaluation mode whose biases, shifts and statistics are random."""
    disturb(module)
    net = sizer.attach(module, x, create(method, 1e-3 if method == "shrinknets" else None), **settings)
    module.eval()
    return net


def close(net: Net, layer: str, units: list[int]) -> None:
    for slot in net.group(layer).roles("gate"):
        slot.ref.tensor.data[units] = 0


def starve(net: Net, layer: str, units: list[int]) -> Tensor:
    """Takes away all that comes into some units, but for biases and shifts; gives them as a mask."""
    group = net.group(layer)
    for slot in group.roles("row"):
        slot.ref.tensor.data.index_fill_(slot.dim, torch.tensor(units), 0)
    return torch.zeros(group.width, dtype=torch.bool).index_fill_(0, torch.tensor(units), True)


def dropped(net: Net, x: Tensor, dead: dict[str, list[int]]) -> int:
    """Starves units and drops them; the outputs must stay."""
    masks = {net.group(layer): starve(net, layer, units) for layer, units in dead.items()}
    with torch.no_grad():
        before = net(x)
        removed = net.drop(masks)
        assert (net(x) - before).abs().max() < 1e-5 * before.abs().max().clamp(min=1)
    return removed


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("padding", [0, 1])
def test_a_closed_gate_goes_whatever_lies_between_it_and_its_readers(activation: type[nn.Module], padding: int) -> None:
    x = torch.randn(4, 1, 9, 9)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), activation(), nn.Conv2d(6, 3, 3, padding=padding, bias=False),
        activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
    )  # fmt: skip
    net = attached(module, x)
    close(net, "0", [1, 2])
    with torch.no_grad():
        before = net(x)
        net.after_epoch()
        assert (net(x) - before).abs().max() < 1e-5
    assert net.widths == {"0": 4, "3": 3}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_linear_reader_takes_a_constant_into_its_bias(activation: type[nn.Module]) -> None:
    x = torch.randn(8, 3)
    net = attached(nn.Sequential(nn.Linear(3, 6), activation(), nn.Linear(6, 4), activation(), nn.Linear(4, 2)), x)
    assert dropped(net, x, {"0": [0, 4], "2": [3]}) == 3
    assert net.widths == {"0": 4, "2": 3}


def test_constants_of_two_layers_behind_each_other_are_told_before_either_is_moved() -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 2))
    net = attached(module, x)
    first, second = net.groups
    first_dead = starve(net, "0", [0, 1])
    second_dead = torch.zeros(5, dtype=torch.bool)
    second_dead[2] = True
    with torch.no_grad():
        module[2].weight[2, 2:] = 0  # reads nothing but the two
        before = net(x)
        assert net.drop({first: first_dead, second: second_dead}) == 3
        assert (net(x) - before).abs().max() < 1e-5


def test_a_normalisation_behind_a_reader_without_bias_takes_a_constant() -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(
        nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)
    )
    net = attached(module, x)
    assert dropped(net, x, {"0": [1]}) == 1


def test_a_reader_that_has_nothing_to_take_a_constant_keeps_the_unit() -> None:
    x = torch.randn(8, 3)
    for activation, removed in ((nn.Sigmoid(), 0), (nn.ReLU(), 1)):
        module = nn.Sequential(nn.Linear(3, 6, bias=False), activation, nn.Linear(6, 2, bias=False))
        assert dropped(attached(module, x), x, {"0": [1]}) == removed


def test_padding_keeps_a_constant_that_is_not_zero() -> None:
    x = torch.randn(4, 1, 9, 9)
    for padding, width in ((0, 4), (1, 6)):
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 3, 3, padding=padding), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(3, 2),
        )  # fmt: skip
        net = attached(module, x)
        dropped(net, x, {"0": [1, 2]})
        assert net.widths["0"] == width


class Twice(nn.Module):
    """A layer, a normalisation or a bias that serves two places, so that no constant may be moved into it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.c, self.d = nn.Linear(4, 6, bias=kind == "bias"), nn.Linear(4, 6, bias=kind == "bias")
        self.first, self.second, self.out = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 2)
        if kind == "bias":
            self.d.bias = self.c.bias
        elif kind == "norm":
            self.second = self.first
        else:
            self.d = self.c

    def forward(self, x: Tensor) -> Tensor:
        left = self.first(self.c(torch.sigmoid(self.a(x))))
        right = self.second(self.d(torch.sigmoid(self.b(x)) * 2))
        return self.out(left + torch.sigmoid(right))


@pytest.mark.parametrize("kind", ["layer", "norm", "bias"])
def test_what_serves_two_places_takes_no_constant(kind: str) -> None:
    x = torch.randn(8, 3)
    assert dropped(attached(Twice(kind), x), x, {"a": [1]}) == 0


@pytest.mark.parametrize("kind", ["layer", "norm", "bias"])
@pytest.mark.parametrize("batch", [2, 16])  # the smaller one of input and weight is gated
def test_what_serves_two_places_is_gated_once_in_each(kind: str, batch: int) -> None:
    x = torch.randn(batch, 3)
    net = attached(Twice(kind), x)
    with torch.no_grad():
        before = net(x)
        module = net.finish()
        assert (module(x) - before).abs().max() < 1e-5


def test_a_weight_that_two_nested_modules_read_is_gated_once() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            h = torch.tanh(self.b(h)) + nn.functional.linear(h, self.b.weight)
            return self.out(h + torch.tanh(nn.functional.linear(h, self.b.weight)))

    x = torch.randn(8, 3)
    net = attached(Nested(), x)
    with torch.no_grad():
        before = net(x)
        module = net.finish()
        assert (module(x) - before).abs().max() < 1e-5


def test_units_that_only_removed_ones_feed_go_too() -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(
        nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 6), nn.Sigmoid(), nn.Linear(6, 2)
    )
    net = attached(module, x)
    with torch.no_grad():
        module[2].weight[[1, 2], 1:] = 0
        module[4].weight[0, [0, 3, 4]] = 0
    assert dropped(net, x, {"0": [0]}) == 4
    assert net.widths == {"0": 3, "2": 3, "4": 5}


def test_a_bias_added_by_hand_goes_with_its_unit() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.shift = nn.Linear(3, 6, bias=False), nn.Linear(6, 2), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x) + self.shift))

    x = torch.randn(8, 3)
    net = attached(Added(), x)
    assert dropped(net, x, {"a": [1, 5]}) == 2
    assert net.module.shift.shape == (4,)


def test_dropping_leaves_every_module_in_its_mode() -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Dropout(), nn.BatchNorm1d(6), nn.Linear(6, 2))
    net = attached(module, x)
    module.train()
    module[3].eval()
    mean = module[3].running_mean.clone()
    net.drop({net.group("0"): starve(net, "0", [0])})
    assert [child.training for child in module] == [True, True, True, False, True]
    assert torch.equal(module[3].running_mean, mean[1:])


def test_units_that_stay_for_a_multiple_keep_what_they_give() -> None:
    x = torch.randn(8, 3)
    net = attached(nn.Sequential(nn.Linear(3, 8), nn.Sigmoid(), nn.Linear(8, 2)), x, round_to=4)
    assert dropped(net, x, {"0": [0, 1, 2]}) == 0
    assert dropped(net, x, {"0": [0, 1, 2, 3, 5]}) == 4
    assert net.widths == {"0": 4}


def test_the_last_unit_stays_and_the_layer_is_noted() -> None:
    x = torch.randn(8, 3)
    net = attached(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), x)
    close(net, "0", list(range(6)))
    before = net(x).detach()
    net.after_epoch()
    assert (net.widths, net.collapsed) == ({"0": 1}, ["0"])
    assert torch.equal(net(x).detach(), before)


def test_removing_by_hand_leaves_at_least_one_unit() -> None:
    net = sizer.attach(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), torch.randn(2, 3), create("fixed"))
    with pytest.raises(InputError, match="cannot remove all 2 units of '0'"):
        net.remove("0", [0, 1])
    with pytest.raises(InputError, match="the width of '2' is fixed at 2: an output"):
        net.remove("2", [0])


def test_a_constant_that_belongs_to_units_of_two_layers_is_moved_once() -> None:
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(5, 6), nn.Linear(24, 2)

        def forward(self, x: Tensor) -> Tensor:
            across = torch.sigmoid(self.b(torch.sigmoid(self.a(x)).transpose(1, 2)))
            return self.out(across.flatten(1))

    x = torch.randn(8, 5, 3)
    net = attached(Crossed(), x)
    assert net.widths == {"a": 4, "b": 6}
    assert dropped(net, x, {"a": [0, 2], "b": [1, 3]}) == 4
