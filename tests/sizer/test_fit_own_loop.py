"""The loop of one's own, as README has it, under every optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import sizer
from sizer.methods import create
from tests.sizer.fits import part


class Residual(nn.Module):
    """Normalised, with a residual sum: widths that belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 24)
        self.norm = nn.BatchNorm1d(24)
        self.second = nn.Linear(24, 24)
        self.out = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x.flatten(1))))
        outputs: torch.Tensor = self.out(x + torch.relu(self.second(x)))
        return outputs


OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    f"{kind.__name__}-{name}": (kind, options)
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
    for name, options in {"plain": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}.items()
    if (kind, name) != (torch.optim.RMSprop, "fused")  # torch has none
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("method", "knob"), [("shrinknets", 0.02), ("auto-sizing", 1e-4)])
def test_a_loop_of_ones_own_sizes_a_network_under_any_optimiser(method: str, knob: float, name: str) -> None:
    kind, options = OPTIMIZERS[name]
    if kind is torch.optim.SGD:
        options = {**options, "momentum": 0.9}
    torch.manual_seed(0)
    module, loader = Residual(), DataLoader(part("train"), 32, shuffle=True)
    x, _ = next(iter(loader))
    net = sizer.attach(module, x[:2], create(method, knob))
    optimizer = net.track(kind(net.param_groups(lr=2e-3), **options))
    losses = []
    for _ in range(8):
        losses.append(0.0)
        net.before_epoch()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            (loss + net.penalty()).backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            net.after_step()
            losses[-1] += float(loss.detach())
        net.after_epoch()
    assert losses[-1] < losses[0]
    assert net.resizes > 0
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in net.module.parameters()}
    for parameter, state in optimizer.state.items():
        shapes = {value.shape for value in state.values() if isinstance(value, torch.Tensor) and value.dim()}
        assert shapes <= {parameter.shape}
    net.module.eval()
    with torch.no_grad():
        before = net(x)
        plain = net.finish()
        assert torch.allclose(plain(x), before, atol=1e-5)
    assert plain is module
    assert {type(child) for child in module.modules()} == {Residual, nn.Linear, nn.BatchNorm1d}
