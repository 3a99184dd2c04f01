"""Width groups come from what a network does, never from how its modules are named, ordered or typed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sizer
from sizer import Net, UnknownNameError, UnsupportedNetworkError
from sizer.dimensions import positions
from sizer.methods import create

PICTURES = torch.randn(4, 1, 12, 12)


class Residual(nn.Module):
    """Submodules in another order than they run, a residual sum, and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(6 * 3 * 3, 5)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.skip = nn.Conv2d(4, 6, 1)
        self.first = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        h = F.relu(self.norm(self.second(h)) + self.skip(h))
        h = F.max_pool2d(h, 4)
        return self.out(h.view(h.size(0), -1))


class Branching(Residual):
    """What runs depends on the data: one side uses a layer that the other does not."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        if x.mean() > 0:
            h = h + torch.tanh(self.second(h))[:, :4]
        return self.out(h)


class BranchInside(nn.Module):
    """A layer that runs for some data only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 7), nn.Linear(7, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        if h.sum() > 1:
            h = torch.relu(self.b(h))
        return self.c(h)


def attach(module: nn.Module, x: Tensor = PICTURES, ignore: tuple[str, ...] = (), method: str = "shrinknets") -> Net:
    return sizer.attach(module, x, create(method, 1e-3), ignore=ignore)


def slots(net: Net, layer: str) -> set[str]:
    return {f"{slot.ref.path}[{slot.dim}]" for slot in net.group(layer).slots if slot.role != "gate"}


def test_a_residual_sum_ties_the_widths_of_both_its_sides() -> None:
    net = attach(Residual())
    assert net.widths == {"first": 4, "second": 6}
    assert slots(net, "first") == {
        "first.weight[0]", "first.bias[0]", "second.weight[1]", "skip.weight[1]",
    }  # fmt: skip
    assert slots(net, "second") == {
        "second.weight[0]", "second.bias[0]", "skip.weight[0]", "skip.bias[0]", "norm.weight[0]", "norm.bias[0]",
        "norm.running_mean[0]", "norm.running_var[0]", "out.weight[1]",
    }  # fmt: skip
    assert [fixed.reason for fixed in net.fixed] == ["an output of the network"]


def test_both_sides_of_a_branch_on_data_are_followed() -> None:
    net = attach(BranchInside(), torch.randn(4, 3))
    assert net.widths == {"a": 7}
    assert {"a.weight[0]", "b.weight[0]", "b.weight[1]", "c.weight[1]"} <= slots(net, "a")
    net.remove("a", [0, 5])
    for scale in (0.0, 100.0):
        assert net(torch.full((4, 3), scale)).shape == (4, 2)


def test_a_flattened_map_takes_all_pixels_of_a_channel() -> None:
    net = attach(Residual())
    (column,) = [slot for slot in net.group("second").slots if slot.ref.path == "out.weight"]
    assert positions(column.units, net.group("second").atom).tolist()[1] == list(range(9, 18))
    before = net.module.out.weight.detach().clone()
    net.remove("second", [2])
    assert torch.equal(net.module.out.weight, torch.cat((before[:, :18], before[:, 27:]), 1))
    assert net.module.out.in_features == 45


def test_shared_modules_and_tied_weights_are_one_width() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp, self.mid, self.tied, self.out = (nn.Linear(*io) for io in ((3, 6), (6, 6), (6, 6), (6, 2)))
            self.tied.weight = self.mid.weight

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.mid(torch.tanh(self.inp(x))))
            return self.out(torch.tanh(self.tied(torch.tanh(self.mid(h)))))

    module = Shared()
    net = attach(module, torch.randn(4, 3))
    assert net.widths == {"inp": 6}
    net.remove("inp", [1, 2])
    assert module.tied.weight is module.mid.weight
    assert module.mid.weight.shape == (4, 4)
    assert module(torch.randn(4, 3)).shape == (4, 2)


def test_ignored_layers_keep_their_width_with_the_reason() -> None:
    net = attach(Residual(), ignore=("skip",))
    assert net.widths == {"first": 4}
    assert "second: 6 units, fixed: ignored, as asked" in repr(net)


def test_an_unknown_layer_to_ignore_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'frist'; there are: first"):
        attach(Residual(), ignore=("frist",))


def module_with(forward: str) -> nn.Module:
    class Bad(Residual):
        pass

    scope: dict[str, object] = {"torch": torch, "F": F}
    exec(f"def forward(self, x):\n    h = self.first(x)\n    {forward}", scope)
    Bad.forward = scope["forward"]  # type: ignore[assignment]  # made by exec
    return Bad()


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        ("return torch.fft.fft(h).real", "own forward.*fft_fft.*no rule"),
        ("return torch.from_numpy(h.detach().numpy())", "cannot be traced"),
        ("return torch.cumsum(h, 1)", "first: cumsum over its units"),
        ("return self.out(F.max_pool2d(h, 4).reshape(-1, 36)[:, :1].expand(4, 54))", "first: a dimension cut inside"),
        ("return F.conv2d(h, self.second.weight * 2)", "first: the weight of conv2d .* is computed"),
        ("return self.norm(h)", "example input"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(forward: str, says: str) -> None:
    with pytest.raises(UnsupportedNetworkError, match=says) as error:
        attach(module_with(forward))
    assert "\n" not in str(error.value)


def test_the_innermost_module_that_cannot_be_traced_is_named() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.detach().numpy())

    with pytest.raises(UnsupportedNetworkError, match=r"module '1\.0' \(Inner\)"):
        attach(nn.Sequential(nn.Linear(3, 4), nn.Sequential(Inner()), nn.Linear(4, 2)), torch.randn(2, 3))


@pytest.mark.parametrize(
    "forward",
    [
        "return self.out2(F.max_pool2d(h, 4).view(-1, 36))",
        "return self.out2(F.max_pool2d(h, 4).reshape(4, 4 * 9))",
    ],
)
def test_a_hard_coded_width_is_found_out_at_once(forward: str) -> None:
    module = module_with(forward)
    module.out2 = nn.Linear(36, 5)
    with pytest.raises(UnsupportedNetworkError, match="first: hard-coded where it is used"):
        attach(module)


def test_a_network_without_a_free_width_says_why() -> None:
    with pytest.raises(UnsupportedNetworkError, match="an output of the network"):
        attach(nn.Linear(3, 2), torch.randn(2, 3))


def test_a_mean_over_units_keeps_their_number() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.b(torch.relu(self.a(x)))).mean(1)

    net = attach(Mean(), torch.randn(2, 3))
    assert net.widths == {"a": 8}
    assert [fixed.reason for fixed in net.fixed] == ["mean over its units in the network's own forward()"]


def test_global_pooling_and_one_dimensional_convolution_are_followed() -> None:
    module = nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(6, 5, 3, padding="same"),
        nn.SELU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(5, 3),
    )  # fmt: skip
    net = attach(module, torch.randn(4, 2, 20))
    assert net.widths == {"0": 6, "4": 5}
    net.remove("0", [3])
    net.grow("4", 2)
    assert net(torch.randn(4, 2, 20)).shape == (4, 3)
