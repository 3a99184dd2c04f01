"""Networks that are trained alone, and the same ones in a stack."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

import sizer
from sizer import Net, networks
from sizer.methods import create
from sizer.stack import Stack

SHAPES = {"mlp": (1, 4, 4), "das-mlp": (1, 4, 4), "lenet": (1, 16, 16), "das-conv": (2, 6, 6)}
WIDTHS = {
    "mlp": ([7, 5], [4, 9], [6, 6], [7, 5]),
    "das-mlp": ([7, 5, 6, 4, 5], [4, 6, 5, 7, 6], [6] * 5, [5] * 5),
    "lenet": ([3, 4, 6], [5, 2, 9], [4, 4, 5], [3, 4, 6]),
    "das-conv": ([3, 4, 3, 2, 6], [5, 2, 4, 4, 3], [2] * 5, [3] * 5),
}
KNOBS = {"shrinknets": (1e-4, 1e-3, 1e-2, 1e-1), "auto-sizing": (1e-6, 1e-5, 1e-4, 1e-3)}
CLASSES, BATCH = 4, 8

Member = tuple[Net, Optimizer]
Maker = Callable[[list[dict[str, Any]]], Optimizer]


def fused_adam(groups: list[dict[str, Any]]) -> Optimizer:
    return Adam(groups, fused=True)


def attached(
    module: nn.Module, shape: Sequence[int], method: str, knob: float | None, maker: Maker = fused_adam, **settings: Any
) -> Member:
    """A network as ``fit`` attaches it, in the first of ten epochs."""
    made = create(method, knob, **settings) if knob is not None else create(method, **settings)
    return ready(sizer.attach(module, torch.zeros(2, *shape), made), maker)


def ready(net: Net, maker: Maker) -> Member:
    net.epochs, net.steps_per_epoch, net.epoch = 10, 4, 1
    return net, net.track(maker(net.param_groups(1e-2, net.method.weight_decay)))


def members(
    network: str, method: str, maker: Maker = fused_adam, *, own: bool = False, **settings: Any
) -> list[Member]:
    """Four networks of unequal widths and knobs; only where each is its ``own`` may units be removed."""
    result = []
    for at, net in enumerate(traced(network) if own else copy.deepcopy(_traced(network))):
        decay = {"weight_decay": 10.0 ** (at - 4)} if method == "fixed-l2" else {}
        knob = (KNOBS[method][at],) if method in KNOBS else ()
        net.method = create(method, *knob, **settings, **decay)
        net.module.to(torch.get_default_dtype())
        net.inputs = (net.inputs[0].to(torch.get_default_dtype()),)
        torch.manual_seed(at)
        net.method.prepare(net)
        result.append(ready(net, maker))
    return result


def traced(network: str) -> list[Net]:
    """The four before they get a method: what takes time."""
    result = []
    for at, widths in enumerate(WIDTHS[network]):
        torch.manual_seed(at)
        module = networks.build(network, SHAPES[network], CLASSES, widths)
        result.append(sizer.attach(module, torch.zeros(2, *SHAPES[network]), create("fixed")))
    return result


_traced = cache(traced)


def twins(those: list[Member]) -> list[Member]:
    """Copies of them, whose widths are not to change."""
    return copy.deepcopy(those)


def batches(shape: Sequence[int], steps: int, k: int = 4, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """A batch for each member and step: (k, B, ...) and (k, B)."""
    draw = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(k, BATCH, *shape, generator=draw),
            torch.randint(CLASSES, (k, BATCH), generator=draw),
        )
        for _ in range(steps)
    ]


def generators(k: int = 4) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + at) for at in range(k)]


def stacked(those: list[Member], **given: Any) -> Stack:
    return Stack([net for net, _ in those], [optimizer for _, optimizer in those], **given)


def step_alone(member: Member, x: Tensor, y: Tensor, clip: float | None = None) -> Tensor:
    """A step of the ordinary loop; its loss."""
    net, optimizer = member
    optimizer.zero_grad()
    loss = F.mse_loss(net(x), y) if y.is_floating_point() else F.cross_entropy(net(x), y)
    (loss + net.penalty()).backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(net.module.parameters(), clip)
    optimizer.step()
    net.after_step()
    return loss.detach()


def train_alone(those: list[Member], data: list[tuple[Tensor, Tensor]], clip: float | None = None) -> Tensor:
    """(steps, k) losses of each member trained alone, drawing from the default generator."""
    rows = []
    for at, (member, generator) in enumerate(zip(those, generators(len(those)), strict=True)):
        torch.random.default_generator.set_state(generator.get_state())
        rows.append(torch.stack([step_alone(member, x[at], y[at], clip) for x, y in data]))
    return torch.stack(rows, 1)


def train(stack: Stack, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(steps, k) losses of a stack."""
    rows, before = [], stack.total.clone()
    for x, y in data:
        stack.begin_step()
        stack.step(x, y)
        rows.append((stack.total - before) / y.shape[1])
        before = stack.total.clone()
    return torch.stack(rows)


def state_of(member: Member) -> dict[str, Tensor]:
    """Parameters, gates and optimiser state by name."""
    net, optimizer = member
    found = {name: value.detach() for name, value in net.module.state_dict().items()}
    for name, parameter in net.module.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                found[f"{name}/{key}"] = value
    return found


def difference(left: list[Member], right: list[Member]) -> float:
    """The largest difference of any entry, relative to 1 + its size; of shapes, infinite."""
    worst = 0.0
    for one, other in zip(left, right, strict=True):
        mine, theirs = state_of(one), state_of(other)
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value.shape == theirs[name].shape, name
            far = ((value.double() - theirs[name].double()).abs() / (1 + theirs[name].double().abs())).max()
            worst = max(worst, float(far))
    return worst
