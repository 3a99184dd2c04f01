"""Group sparsity (Alvarez, Salzmann: Learning the number of neurons in deep networks, 2016): whole units become zero.

The regulariser is ``sum_l lambda_l ((1 - a) sqrt(P_l) sum_n ||theta_n||_2 + a ||theta||_1)``, theta_n being the P_l
parameters of unit n of layer l, and ``a`` the mixing: 0 gives the group lasso, more the sparse group lasso. The
optimiser takes a step on the loss alone, then every unit takes the closed-form proximal step of the regulariser.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sizer.errors import InputError, unknown
from sizer.groups import WRITTEN, Group, Slot
from sizer.methods.method import Knob, Method
from sizer.net import Net
from sizer.step_sizes import StepSize

REMOVAL = ("on-the-way", "after-training")
LEAST = 0.1
"""Of the root mean square of a layer's divisors: the least that divides a unit's step."""


class GroupSparsity(Method):
    """Units all of whose parameters the proximal step made zero are removed, and those fed by nothing else with them.

    A unit's parameters are all that it has in its group: incoming weights, bias, and the scale and shift of batch
    normalisations of it; where layers write one sum, those of all of them.

    Args:
        value: lambda.
        mixing: the paper's alpha, from 0 (group lasso) to 1 (lasso); the paper has 0 and 0.5.
        first_layers: how many layers, in the order in which they run, have a smaller lambda. 1 as in the paper's
            experiments with small images (3 on ImageNet).
        first_weight: the share of lambda that those have: 0.5 as with small images (0.4 on ImageNet).
        removal: ``on-the-way`` (default), or ``after-training``, the paper's: at the end of the last planned epoch, or
            in ``finish``; until then zeros stay in the network, and the epochs before have its first widths.
        check_every: optimiser steps between two looks for zero units on the way.
        share: the share of zero units in a layer from which they are removed on the way.
    """

    name = "group-sparsity"
    knob = Knob("lambda", 3e-5, 1e-2)
    settings: ClassVar = {
        "mixing": 0.0,
        "first_layers": 1,
        "first_weight": 0.5,
        "removal": "on-the-way",
        "check_every": 50,
        "share": 0.02,
    }

    def __init__(
        self,
        value: float,
        mixing: float = 0.0,
        first_layers: int = 1,
        first_weight: float = 0.5,
        removal: str = "on-the-way",
        check_every: int = 50,
        share: float = 0.02,
    ) -> None:
        super().__init__(value)
        if removal not in REMOVAL:
            raise unknown("removal of group-sparsity", removal, REMOVAL)
        if not (0 <= mixing <= 1 and first_layers >= 0 and first_weight >= 0 and check_every >= 1 and 0 <= share < 1):
            raise InputError(
                "group-sparsity needs 0 <= mixing <= 1, first_layers >= 0, first_weight >= 0, check_every >= 1 and "
                f"0 <= share < 1, got mixing={mixing}, first_layers={first_layers}, first_weight={first_weight}, "
                f"check_every={check_every}, share={share}"
            )
        self.mixing = mixing
        self.first_layers = first_layers
        self.first_weight = first_weight
        self.on_the_way = removal == "on-the-way"
        self.check_every = check_every
        self.share = share

    def prepare(self, net: Net) -> None:
        if self.first_layers > len(net.groups):
            raise InputError(
                f"first_layers is {self.first_layers}, but the network has {len(net.groups)} layers that can be sized; "
                "give at most that many"
            )

    def after_step(self, net: Net) -> None:
        self._shrink(net)
        if self.on_the_way and net.steps % self.check_every == 0:
            dead = self._dead(net)
            if any(int(mask.sum()) > self.share * len(mask) for mask in dead.values()):
                net.drop(dead)

    def after_epoch(self, net: Net) -> None:
        if self.on_the_way or net.epoch == net.epochs:
            net.drop(self._dead(net))

    def finish(self, net: Net) -> None:
        if not self.on_the_way:
            net.drop(self._dead(net))
        super().finish(net)

    @torch.no_grad()
    def _dead(self, net: Net) -> dict[Group, Tensor]:
        """Units that are zero as their readers see them: (width,) bool for each group."""
        dead = {}
        for group in net.groups:
            sizes = [slot.by_unit(slot.ref.tensor, group).abs().amax(1) for slot in group.writers]
            dead[group] = torch.stack(sizes).amax(0) == 0
        return dead

    @torch.no_grad()
    def _shrink(self, net: Net) -> None:
        """The proximal step of every unit, over those of its parameters that are trained."""
        sizes = net.step_sizes(slot.ref.tensor for group in net.groups for slot in group.roles(*WRITTEN))
        for at, group in enumerate(net.groups):
            slots = [slot for slot in group.roles(*WRITTEN) if _moves(slot, sizes)]
            if slots:
                weight = self.value * (self.first_weight if at < self.first_layers else 1.0)
                parts = [_precise(slot.by_unit(slot.ref.tensor, group)) for slot in slots]
                norms = [
                    _divisor(slot, group, sizes[slot.ref.tensor], part) for slot, part in zip(slots, parts, strict=True)
                ]
                step = unit_step(norms, sum(part.shape[1] for part in parts))
                for slot, part in zip(slots, shrunk(parts, step, weight, self.mixing), strict=True):
                    slot.put_by_unit(slot.ref.tensor, group, part)


def prox(theta: Tensor, step: Tensor | float, weight: float, mixing: float) -> Tensor:
    """The minimum of ``||x - theta||^2 / (2 step) + (1 - mixing) weight sqrt(P) ||x||_2 + mixing weight ||x||_1``.

    With ``S`` the soft threshold at ``step * mixing * weight`` it is
    ``max(0, 1 - step (1 - mixing) weight sqrt(P) / ||S(theta)||_2) * S(theta)``.

    Args:
        theta: (units, P).
        step: t; one for all units or (units,).
        weight: lambda of the layer.
        mixing: the paper's alpha.
    """
    return shrunk([theta], step, weight, mixing)[0]


def shrunk(parts: list[Tensor], step: Tensor | float, weight: float, mixing: float) -> list[Tensor]:
    """``prox`` of units whose parameters stand in several tensors, each of shape (units, some of P)."""
    if mixing > 0:
        limit = torch.as_tensor(step * mixing * weight, device=parts[0].device)[..., None]
        parts = [part - torch.clamp(part, -limit, limit) for part in parts]
    if mixing == 1:
        return parts
    entries = sum(part.shape[1] for part in parts)
    norm = _norm(parts).clamp_min(torch.finfo(parts[0].dtype).tiny)
    factor = (1 - step * ((1 - mixing) * weight * entries**0.5) / norm).clamp_min(0)
    return [part * factor[:, None] for part in parts]


def unit_step(norms: list[Tensor], entries: int) -> Tensor:
    """One step size a unit from those of its entries: the inverse of the root mean square of what divides them.

    Gradient descent has one step for all entries, and this is it. Adam's metric differs by entry, for which a group
    has no closed form; this takes ``lr / sqrt(mean of (sqrt(v) + eps)^2)`` over the unit's entries, so that the step is
    as long, against the mean gradient of the unit, as Adam's own. A unit that no sample has reached yet has a v of 0,
    which would remove it at once (12 of 600 in the first step of an mlp, all of which other samples reach), so what
    divides a unit's step is at least ``LEAST`` times that of its layer.

    Args:
        norms: for each tensor that holds some of them, the 2-norm of what divides the gradients there: (units,).
        entries: how many parameters a unit has.

    Returns:
        (units,).
    """
    size = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    least = LEAST * size.square().mean().sqrt()
    step: Tensor = entries**0.5 / torch.maximum(size, least)
    return step


def _norm(parts: list[Tensor]) -> Tensor:
    """Of each unit over all parts: (units,)."""
    norm: Tensor = torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts]), dim=0
    )
    return norm


def _moves(slot: Slot, sizes: dict[Tensor, StepSize]) -> bool:
    """Whether the optimiser moves it; what is frozen stays as it is."""
    tensor = slot.ref.tensor
    return tensor.requires_grad and tensor in sizes and bool(sizes[tensor][0] > 0)


def _divisor(slot: Slot, group: Group, size: StepSize, part: Tensor) -> Tensor:
    """The norm, over each unit's entries in a slot, of the inverse of their steps: (units,)."""
    rate, scale = size
    if isinstance(scale, Tensor):
        norm: Tensor = torch.linalg.vector_norm(_precise(slot.by_unit(scale, group)), dim=1) / rate
        return norm
    return part.new_full((len(part),), float(scale / rate) * part.shape[1] ** 0.5)


def _precise(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
