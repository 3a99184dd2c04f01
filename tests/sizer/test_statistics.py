"""Statistics of units are those of numpy on stored activations, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import sizer
from sizer import InputError, Net
from sizer.methods import create
from sizer.statistics import Statistics, measure

X = torch.randn(53, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3),
    )  # fmt: skip


READ = {"0": 4, "4": 6, "7": 9}
"""Each layer, and after how many modules its units are read."""


def attached(module: nn.Module | None = None) -> Net:
    return sizer.attach(module or network(), X[:2], create("fixed"))


def found(net: Net, size: int, pooled: bool = False) -> dict[str, Statistics]:
    result = measure(net.module, net.groups, torch.split(X, size), correlations=True, pooled=pooled)
    return {group.name: own for group, own in result.items()}


def stored(net: Net, layer: str) -> NDArray[np.float64]:
    """Activations of all samples: (samples, positions, units)."""
    module = net.module
    assert isinstance(module, nn.Sequential)
    with torch.no_grad():
        values = module.eval()[: READ[layer]](X).flatten(2) if layer != "7" else module.eval()[:9](X)[:, :, None]
    return values.double().movedim(1, 2).numpy()


def correlated(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(values, rowvar=False))


@pytest.mark.parametrize("size", [1, 7, 16, 53])
def test_they_agree_with_numpy_on_stored_activations(size: int) -> None:
    net = attached()
    apart, pooled = found(net, size), found(net, size, pooled=True)
    for layer in READ:
        values = stored(net, layer)
        flat = values.reshape(-1, values.shape[-1])
        still = values.std(0) == 0
        counts = sum(~(alone[:, None] & alone) for alone in still)
        averaged = sum(correlated(values[:, at]) for at in range(values.shape[1])) / np.maximum(counts, 1)
        for statistics, correlation in ((apart[layer], averaged), (pooled[layer], correlated(flat))):
            assert statistics.correlation is not None
            np.testing.assert_allclose(statistics.l1, abs(flat).mean(0), atol=1e-6)
            np.testing.assert_allclose(statistics.mean, flat.mean(0), atol=1e-6)
            np.testing.assert_allclose(statistics.variance, flat.var(0), atol=1e-6)
            np.testing.assert_allclose(statistics.correlation, correlation, atol=1e-6)


def test_a_constant_unit_correlates_with_nothing_and_equal_units_fully() -> None:
    module = network().double()
    net = sizer.attach(module, X[:2].double(), create("fixed"))
    with torch.no_grad():
        for part in (module[0], module[7]):
            part.weight[1] = 0
            part.bias[1] = 0.7  # the mean of seven of them is another number
            part.weight[3] = part.weight[2]
            part.bias[3] = part.bias[2] = 4.0
    found = measure(module, net.groups, torch.split(X.double(), 7), correlations=True)
    for layer in ("0", "7"):
        correlation = found[net.group(layer)].correlation
        assert correlation is not None
        assert not correlation[1].any()
        assert not correlation[:, 1].any()
        assert float(correlation[2, 3]) == pytest.approx(1, abs=1e-9)


def test_a_large_offset_costs_no_precision() -> None:
    """The sum of squares minus the square of the sum would lose all of it in float32."""
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    x = torch.randn(40, 3, dtype=torch.float64)
    net = sizer.attach(module, x[:2], create("fixed"))
    plain = measure(module, net.groups, torch.split(x, 7), correlations=True)[net.groups[0]]
    with torch.no_grad():
        module[0].bias.add_(1e6)
    moved = measure(module, net.groups, torch.split(x, 7), correlations=True)[net.groups[0]]
    assert plain.correlation is not None
    assert moved.correlation is not None
    assert torch.allclose(moved.variance, plain.variance, rtol=1e-6)
    assert torch.allclose(moved.correlation, plain.correlation, atol=1e-6)


def test_measuring_changes_neither_modes_nor_buffers_nor_random_numbers() -> None:
    module = network().train()
    module[3].eval()
    net = attached(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes, state = [part.training for part in module.modules()], torch.get_rng_state()
    found(net, 16)
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_pre_hooks for part in module.modules())


class Bare(nn.Module):
    """Reads units with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight, self.last = nn.Linear(64, 9), nn.Parameter(torch.randn(9, 8)), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.relu(self.first(x.flatten(1))) @ self.weight))


def test_what_cannot_be_measured_is_refused() -> None:
    net = attached(Bare())
    with pytest.raises(InputError, match="the activations of 'first' cannot be read"):
        measure(net.module, net.groups, [X])
    net = attached()
    with pytest.raises(InputError, match="no batch of training data"):
        measure(net.module, net.groups, [])
    net = sizer.attach(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)), X[:2], create("fixed"))
    with pytest.raises(InputError, match="36 positions in one batch and 25 in another"):
        measure(net.module, net.groups, [X, X[..., :7, :7]])
    measure(net.module, net.groups, [X, X[..., :7, :7]], pooled=True)
