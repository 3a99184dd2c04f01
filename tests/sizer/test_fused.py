"""Steps by Adam's kernel alone are torch's own steps, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from sizer import fused


def trained(kind: type[Optimizer], by: Any, **options: Any) -> list[Tensor]:
    """Parameters and optimiser state after some steps, one parameter having a gradient only in some."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(3))]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.3, "weight_decay": 0.0}]
    optimizer = kind(groups, lr=0.03, **options)  # type: ignore[call-arg]
    for step in range(6):
        fused.clear(optimizer)
        assert all(parameter.grad is None for parameter in parameters)
        for parameter in parameters[: 1 if step % 3 == 1 else 3]:
            parameter.grad = torch.randn_like(parameter)
        by(optimizer)
    states = [optimizer.state[parameter] for parameter in parameters]
    return [*parameters, *(value for state in states for _, value in sorted(state.items()) if value is not None)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"fused": True}),
        (Adam, {"fused": True, "weight_decay": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "maximize": True}),
        (AdamW, {"fused": True, "weight_decay": 0.1}),
        (Adam, {"fused": True, "amsgrad": True}),
        (Adam, {"fused": True, "lr": torch.tensor(0.03)}),
        (Adam, {}),
        (SGD, {"momentum": 0.9}),
    ],
)
def test_a_step_is_the_optimisers_own_to_the_bit(kind: type[Optimizer], options: dict[str, Any]) -> None:
    options = {"lr": 0.03, **options}
    rate = options.pop("lr")
    ours = trained(kind, lambda optimizer: fused.step(with_rate(optimizer, rate)), **options)
    theirs = trained(kind, lambda optimizer: with_rate(optimizer, rate).step(), **options)
    assert len(ours) == len(theirs)
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def with_rate(optimizer: Optimizer, rate: float | Tensor) -> Optimizer:
    for options in optimizer.param_groups:
        options["lr"] = rate
    return optimizer


def test_the_kernel_is_called_by_itself_from_the_second_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = Adam([parameter], fused=True)
    asked = []
    own = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, closure=None: asked.append(self) or own(self, closure))
    for _ in range(3):
        parameter.grad = torch.ones(3)
        fused.step(optimizer)
    assert asked == [optimizer]
    assert float(optimizer.state[parameter]["step"]) == 3


def test_who_watches_the_steps_is_told() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = Adam([parameter], fused=True)
    told = []
    optimizer.register_step_post_hook(lambda *_: told.append("hook"))
    for _ in range(3):
        parameter.grad = torch.ones(3)
        fused.step(optimizer)
    assert told == ["hook"] * 3
    scheduled = Adam([parameter], fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(scheduled, 0.5)
    for _ in range(2):
        fused.step(scheduled)
        schedule.step()  # warns, which fails here, if it has not seen a step
