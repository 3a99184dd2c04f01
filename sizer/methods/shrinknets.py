"""ShrinkNets (Leclerc, Fernandez, Madden): filters after each layer, an L1 penalty on them, dead units removed.

The loss is ``L'(x, y; theta) = L(x, y) + lambda * |theta|`` (eq. 2), theta standing in ``Filter(I; theta) =
I * max(0, theta)`` (eq. 1), with one lambda for all layers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sizer.errors import InputError, unknown
from sizer.groups import Group
from sizer.methods.method import Knob, Method, Sized
from sizer.net import Net


class ShrinkNets(Method):
    """Units are removed as their gates close.

    Args:
        value: lambda.
        rule: ``proximal`` (default): the optimiser sees the data's gradient alone, then theta moves by
            ``max(0, theta - lr * lambda / sqrt(v))``, v being Adam's second moment; lambda rises linearly from 0 over
            ``ramp`` epochs; units go on the way. ``subgradient``: the paper's: the penalty is in the loss, the gates
            have the weights' learning rate, and units go at the end of each epoch.
        start: how theta begins: ``uniform`` in (0, 1), as in the authors' code, or ``ones``.
        ramp: epochs over which lambda rises; 0 for none. ``subgradient`` has none.
        check_every: optimiser steps between two looks for closed gates on the way.
        share: the share of closed gates from which they are removed on the way.
    """

    name = "shrinknets"
    stacks: ClassVar[bool] = True
    knob = Knob("lambda", 1e-5, 1e-2)
    settings: ClassVar = {"rule": "proximal", "start": "uniform", "ramp": 2.0, "check_every": 50, "share": 0.02}

    def __init__(
        self,
        value: float,
        rule: str = "proximal",
        start: str = "uniform",
        ramp: float = 2.0,
        check_every: int = 50,
        share: float = 0.02,
    ) -> None:
        super().__init__(value)
        if rule not in ("proximal", "subgradient"):
            raise unknown("rule of shrinknets", rule, ("proximal", "subgradient"))
        if start not in ("uniform", "ones"):
            raise unknown("start of shrinknets", start, ("uniform", "ones"))
        if ramp < 0 or check_every < 1 or not 0 <= share < 1:
            raise InputError(
                "shrinknets needs ramp >= 0, check_every >= 1 and 0 <= share < 1, "
                f"got ramp={ramp}, check_every={check_every}, share={share}"
            )
        self.proximal = rule == "proximal"
        self.gate_rate = 10.0 if self.proximal else 1.0
        self.start = start
        self.ramp = ramp if self.proximal else 0.0
        self.check_every = check_every
        self.share = share

    def prepare(self, net: Net) -> None:
        starts: dict[Group, Tensor] = {}
        like = next(net.module.parameters())
        for group in net.groups:
            theta = torch.ones(group.width) if self.start == "ones" else torch.rand(group.width)
            starts[group] = theta.to(like.device)
        net.add_gates(starts)

    def penalty(self, net: Sized) -> Tensor:
        if self.proximal or net.gates is None:
            return super().penalty(net)
        sums = torch.stack([torch.relu(theta).sum(-1) for theta in net.gates.parameters()]).sum(0)
        return (net.knob * sums).sum()

    def after_step(self, net: Net) -> None:
        self.shrink(net, self.strength(net))
        due = self.look(net)
        if due is not None and bool(due):
            self.remove(net)

    def after_epoch(self, net: Net) -> None:
        self.remove(net)

    def strength(self, net: Sized) -> float:
        """The ramp, which waits until the length of an epoch is known."""
        if self.ramp == 0:
            return 1.0
        if net.steps_per_epoch is None:
            return 0.0
        return min(1.0, net.steps / (self.ramp * net.steps_per_epoch))

    @torch.no_grad()
    def shrink(self, net: Sized, strength: float | Tensor) -> None:
        """The proximal step of the L1 penalty, in the metric of the optimiser; a closed gate stays closed."""
        if not self.proximal or net.gates is None:
            return
        acting = net.knob * strength
        each = acting.unsqueeze(-1) if isinstance(acting, Tensor) else acting
        sizes = net.step_sizes(net.gates.parameters())
        for gate in net.gates.by_group.values():
            rate, scale = sizes[gate.theta]
            far = rate * each
            if isinstance(scale, Tensor) and not isinstance(far, Tensor):  # the same in an operation less
                gate.theta.sub_(scale.reciprocal_(), alpha=far)
            else:
                gate.theta.sub_(far / scale)
            gate.theta.clamp_(min=0).mul_(gate.alive)
            torch.gt(gate.theta, 0, out=gate.alive)

    def look(self, net: Sized) -> Tensor | None:
        """Every ``check_every`` steps: whether more than ``share`` of a layer's gates are closed."""
        if not self.proximal or net.gates is None:
            return None
        if net.steps % self.check_every == 0:
            closed = [gate.theta <= 0 for gate in net.gates.by_group.values()]
            net.looks.ask(net.steps, torch.stack([mask.logical_not().sum(-1) for mask in closed]))
        opened = net.looks.answer(net.steps)
        if opened is None:
            return None
        widths = torch.tensor([group.width for group in net.gates.by_group], dtype=torch.float64)
        return (widths - opened > self.share * widths).any(0)

    def remove(self, net: Net) -> None:
        gates = net.gates.by_group if net.gates else {}
        net.drop({group: gate.theta.detach() <= 0 for group, gate in gates.items()})
