"""Dropout drops what layers read while they train, and leaves nothing of itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sizer
from sizer import InputError, Net, networks
from sizer.methods import create, method_class
from tests.sizer.digit_images import digits, pictures


def dense(rate: float) -> tuple[nn.Sequential, Net]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 1000), nn.Sigmoid(), nn.Linear(1000, 4), nn.Tanh(), nn.Linear(4, 2))
    return module, sizer.attach(module, torch.randn(2, 3), create("dropout", rate=rate))


def read_by(layer: nn.Module, net: Net, x: Tensor) -> Tensor:
    """What reaches the layer."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    net(x)
    handle.remove()
    return seen[0]


def test_a_share_of_what_is_behind_the_activation_is_dropped_and_the_rest_scaled() -> None:
    module, net = dense(0.3)
    x = torch.randn(64, 3)
    assert torch.equal(read_by(module[0], net, x), x)
    units, whole = read_by(module[2], net, x), module[1](module[0](x))
    stays = units != 0
    assert float((~stays).float().mean()) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(units[stays], (whole / 0.7)[stays])
    assert not torch.equal(stays[0], stays[1])
    assert not torch.equal(read_by(module[2], net, x) != 0, stays)
    assert (read_by(module[4], net, x) == 0).any()


def test_evaluation_and_a_rate_of_zero_drop_nothing() -> None:
    for rate in (0.9, 0.0):
        module, net = dense(rate)
        x = torch.randn(5, 3)
        whole = copy.deepcopy(module).eval()(x) if rate == 0 else module.eval()(x)
        plain = nn.Sequential(nn.Linear(3, 1000), nn.Sigmoid(), nn.Linear(1000, 4), nn.Tanh(), nn.Linear(4, 2))
        plain.load_state_dict(module.state_dict())
        assert torch.equal(whole, plain(x))
        if rate == 0:
            torch.testing.assert_close(net(x), plain(x))


def test_nothing_of_it_is_in_the_state_and_nothing_is_left_at_the_end() -> None:
    module, net = dense(0.5)
    copied = copy.deepcopy(module)
    net.follow(copied)
    assert not torch.equal(copied(torch.ones(4, 3)), copied(torch.ones(4, 3)))
    names = [f"{at}.{leaf}" for at in (0, 2, 4) for leaf in ("weight", "bias")]
    assert list(net.plain_state()) == list(module.state_dict()) == names
    net.remove("0", [0, 5])
    left = net.finish()
    for part in (left, copied):
        assert not any(child._forward_hooks or child._forward_pre_hooks for child in part.modules())
        assert torch.equal(part(torch.ones(4, 3)), part(torch.ones(4, 3)))
    torch.export.export(left, (torch.randn(2, 3),))


@pytest.mark.parametrize("name", [name for name in networks.names() if networks.layered(name)])
def test_every_network_trains_with_it_and_is_itself_again_afterwards(name: str) -> None:
    data = pictures(name)
    torch.manual_seed(0)
    module = networks.build(name, data.input_shape, data.outputs, [8] * len(networks.layers(name)))
    with torch.no_grad():
        before = copy.deepcopy(module).eval()(data.x_val[:4])
        net = sizer.attach(module, data.x_train[:2], create("dropout"))
        for child in module.modules():
            if isinstance(child, nn.Dropout | nn.BatchNorm1d | nn.BatchNorm2d):
                child.eval()
        assert not torch.equal(net(data.x_val[:4]), net(data.x_val[:4]))
        after = net.finish().eval()(data.x_val[:4])
    assert torch.equal(before, after)


class Inside(nn.Module):
    """Attention reads with its last layer's weight inside a module that does more."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen, _ = self.attention(x, x, x, need_weights=False)
        result: Tensor = self.out(seen)
        return result


def test_inside_a_module_that_does_more_the_columns_are_dropped_for_the_whole_batch() -> None:
    torch.manual_seed(0)
    module = Inside()
    x = torch.randn(1, 5, 8).expand(6, 5, 8)
    whole = copy.deepcopy(module).eval()(x)
    net = sizer.attach(module, x[:2], create("dropout", rate=0.5))
    assert any(not reader.alone for group in net.groups for reader in group.readers)
    seen: list[Tensor] = []
    module.out.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()), prepend=True)
    outputs = net(x)
    outputs.sum().backward()
    assert torch.allclose(seen[0][0], seen[0][5], atol=1e-6)
    weight = module.attention.out_proj.weight
    assert weight.grad is not None
    assert 0 < int((weight.grad.abs().sum(0) == 0).sum()) < 8
    assert torch.allclose(net.finish().eval()(x), whole, atol=1e-6)


def test_it_trains_the_same_twice_and_sizes_nothing() -> None:
    data, runs = digits(), []
    for _ in range(2):
        torch.manual_seed(0)
        module = networks.build("mlp", data.input_shape, data.outputs, [40])
        runs.append(sizer.fit(module, data, create("dropout"), epochs=8, batch_size=32, learning_rate=5e-3))
    for one, other in zip(*(run.net.module.state_dict().values() for run in runs), strict=True):
        assert torch.equal(one, other)
    assert runs[0].history[-1].val_accuracy > 0.8
    assert runs[0].history[-1].widths == {"dense1": 40}
    assert not method_class("dropout").sizes


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="rate must be at least 0 and under 1"):
        create("dropout", rate=rate)
