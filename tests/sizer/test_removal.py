"""A removed unit's constant output is not lost: it is folded into its readers, or the unit stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sizer
from sizer import InputError, Net
from sizer.methods import create

ACTIVATIONS = (nn.ReLU, nn.Sigmoid, nn.Softplus, nn.SELU, nn.Tanh, nn.Hardsigmoid)


def closed(module: nn.Module, x: Tensor, units: list[int], layer: str) -> tuple[Net, Tensor]:
    """A network in evaluation mode with some gates of a layer closed, and its outputs."""
    net = sizer.attach(module, x, create("shrinknets", 1e-3))
    with torch.no_grad():
        for slot in net.group(layer).roles("gate"):
            slot.ref.tensor[units] = 0
    module.eval()
    with torch.no_grad():
        return net, net(x)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_linear_reader_takes_the_constant(activation: type[nn.Module]) -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(nn.Linear(3, 6), activation(), nn.Linear(6, 4), activation(), nn.Linear(4, 2))
    net, before = closed(module, x, [0, 4], "0")
    net.after_epoch()
    assert net.widths == {"0": 4, "2": 4}
    with torch.no_grad():
        assert (net(x) - before).abs().max() < 1e-5 * before.abs().max()


def test_a_convolution_takes_it_without_padding_and_keeps_the_unit_with_padding() -> None:
    x = torch.randn(4, 1, 9, 9)
    for padding, width in ((0, 4), (1, 6)):
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.Sigmoid(), nn.Conv2d(6, 3, 3, padding=padding), nn.ReLU(), nn.Flatten(),
            nn.LazyLinear(2),
        )  # fmt: skip
        module(x)
        net, before = closed(module, x, [1, 2], "0")
        net.after_epoch()
        assert net.widths["0"] == width
        with torch.no_grad():
            assert (net(x) - before).abs().max() < 1e-5 * before.abs().max()


def test_a_reader_without_bias_keeps_the_unit() -> None:
    x = torch.randn(8, 3)
    net, _ = closed(nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 2, bias=False)), x, [1], "0")
    net.after_epoch()
    assert net.widths == {"0": 6}


@pytest.mark.parametrize("affine", [True, False])
def test_a_normalisation_after_the_activation_gives_the_gate_its_place(affine: bool) -> None:
    x = torch.randn(8, 3)
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.BatchNorm1d(6, affine=affine), nn.Linear(6, 2))
    module(x)
    if affine:
        nn.init.normal_(module[2].bias)
    net, before = closed(module, x, [0, 3], "0")
    module.train()
    in_training = net(x).detach()
    net.after_epoch()
    assert net.widths == {"0": 4}
    assert (net(x) - in_training).abs().max() < 1e-5
    module.eval()
    plain = net.finish()
    assert (plain(x).detach() - before).abs().max() > 0  # the running statistics moved in training mode
    twin = plain(x).detach()
    torch.export.export(plain, (x,))
    assert torch.equal(plain(x), twin)


def test_a_bias_added_by_hand_is_folded_too() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.shift = nn.Linear(3, 6, bias=False), nn.Linear(6, 2), nn.Parameter(torch.randn(6))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x) + self.shift))

    x = torch.randn(8, 3)
    net, before = closed(Added(), x, [1, 5], "a")
    net.after_epoch()
    assert net.widths == {"a": 4}
    assert net.module.shift.shape == (4,)
    assert (net(x).detach() - before).abs().max() < 1e-5


def test_the_last_unit_stays_and_the_layer_is_noted() -> None:
    x = torch.randn(8, 3)
    net, before = closed(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)), x, list(range(6)), "0")
    net.after_epoch()
    assert (net.widths, net.collapsed) == ({"0": 1}, ["0"])
    assert torch.equal(net(x).detach(), before)


def test_removing_by_hand_leaves_at_least_one_unit() -> None:
    net = sizer.attach(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)), torch.randn(2, 3), create("fixed"))
    with pytest.raises(InputError, match="cannot remove all 2 units of '0'"):
        net.remove("0", [0, 1])
    with pytest.raises(InputError, match="the width of '2' is fixed at 2: an output"):
        net.remove("2", [0])


class Random(nn.Module):
    """Convolutions with random normalisation, activation, pooling and residual sums, then dense layers."""

    def __init__(self, draw: st.DataObject) -> None:
        super().__init__()
        one_of = lambda *options: draw.draw(st.sampled_from(options))  # noqa: E731  # a name for a call
        self.convs, self.norms, self.acts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.residual: list[bool] = []
        channels = 2
        for _ in range(one_of(1, 2, 3)):
            residual = channels > 2 and one_of(True, False)
            width = channels if residual else one_of(3, 4, 6)
            self.convs.append(nn.Conv2d(channels, width, 3, padding=1, bias=one_of(True, False)))
            self.norms.append(one_of(nn.Identity(), nn.BatchNorm2d(width), nn.BatchNorm2d(width, affine=False)))
            self.acts.append(one_of(nn.ReLU, nn.Sigmoid, nn.SELU, nn.Softplus)())
            self.residual.append(residual)
            channels = width
        self.pool = one_of(nn.MaxPool2d(2), nn.AvgPool2d(3), nn.AdaptiveAvgPool2d(1))
        size = {nn.MaxPool2d: 9, nn.AvgPool2d: 4, nn.AdaptiveAvgPool2d: 1}[type(self.pool)]
        self.dense, self.out = nn.Linear(channels * size, 5), nn.Linear(5, 3)
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            if "running_var" not in name and tensor.is_floating_point():
                nn.init.normal_(tensor.detach(), std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, act, residual in zip(self.convs, self.norms, self.acts, self.residual, strict=True):
            h = act(norm(conv(x)))
            x = x + h if residual else h
        return self.out(torch.tanh(self.dense(self.pool(x).flatten(1))))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_random_networks_keep_their_outputs_when_closed_gates_go_and_units_grow(draw: st.DataObject) -> None:
    torch.manual_seed(draw.draw(st.integers(0, 999)))
    module, x = Random(draw), torch.randn(3, 2, 6, 6)
    net = sizer.attach(module, x, create("shrinknets", 1e-3))
    optimizer = net.track(torch.optim.Adam(net.param_groups(1e-3)))
    net(x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        for group in net.groups:
            gone = draw.draw(st.sets(st.integers(0, group.width - 1), max_size=group.width - 1))
            for slot in group.roles("gate"):
                slot.ref.tensor[list(gone)] = 0
        module.eval()
        before, count = net(x), sum(net.widths.values())
        net.after_epoch()
        assert (net(x) - before).abs().max() <= 1e-5 * before.abs().max().clamp(min=1)
        assert sum(net.widths.values()) <= count
        for layer in net.widths:
            net.grow(layer, draw.draw(st.integers(1, 4)))
        assert (net(x) - before).abs().max() <= 1e-5 * before.abs().max().clamp(min=1)
    for parameter in module.parameters():
        for value in optimizer.state.get(parameter, {}).values():
            assert value.dim() == 0 or value.shape == parameter.shape
    module.train()
    optimizer.zero_grad()
    net(x).square().sum().backward()
    optimizer.step()
    module.eval()
    trained = net(x).detach()
    plain = net.finish()
    assert (plain(x).detach() - trained).abs().max() <= 1e-5 * trained.abs().max().clamp(min=1)
