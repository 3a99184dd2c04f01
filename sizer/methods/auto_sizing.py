"""Dynamic auto-sizing, DAS (Cahlik, Kordik, Cepek): weighted L1, growth and removal each epoch (Algorithm 1).

The penalty is ``alpha * sum_j f(j) * |w_j|_1`` (eq. 1) with f(j) = j, over the incoming weights and the bias of every
unit j = 1, 2, ... of each hidden layer: later units cost more, until the last ones stay near zero and are removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from sizer.errors import InputError, unknown
from sizer.groups import Group, Slot
from sizer.methods.method import Knob, Method
from sizer.net import Net, fresh


class AutoSizing(Method):
    """Units are grown before each epoch and removed after it; the last part of the training is static.

    Where a batch normalisation rescales a layer's output, the unit's size there is its scale and shift: they are
    penalised like the weights and decide about removal. (The paper's networks have none.)

    Args:
        value: alpha.
        threshold: tau: units whose weights and bias are all smaller go, and new ones begin that small.
        growth: units grown in a layer each epoch, as a share of its width.
        min_growth: units grown in a layer each epoch at least.
        penalty: ``weighted-l1`` (the paper's), or what it is compared with: ``l2,1`` or plain ``l1``.
        fine_tuning: the share of the epochs, at the end, without penalty, growth or removal ("static fine-tuning").
            It needs the planned number of epochs (``net.epochs``); without it, all are dynamic.
    """

    name = "auto-sizing"
    knob = Knob("alpha", 1e-6, 1e-3)
    settings: ClassVar = {
        "threshold": 1e-3,
        "growth": 0.2,
        "min_growth": 20,
        "penalty": "weighted-l1",
        "fine_tuning": 0.5,
    }

    def __init__(
        self,
        value: float,
        threshold: float = 1e-3,
        growth: float = 0.2,
        min_growth: int = 20,
        penalty: str = "weighted-l1",
        fine_tuning: float = 0.5,
    ) -> None:
        super().__init__(value)
        if threshold <= 0 or growth < 0 or min_growth < 0 or not 0 <= fine_tuning < 1:
            raise InputError(
                "auto-sizing needs threshold > 0, growth >= 0, min_growth >= 0 and 0 <= fine_tuning < 1, "
                f"got {threshold}, {growth}, {min_growth}, {fine_tuning}"
            )
        if penalty not in PENALTIES:
            raise unknown("penalty of auto-sizing", penalty, PENALTIES)
        self.regulariser = PENALTIES[penalty]
        self.threshold = threshold
        self.growth = growth
        self.min_growth = min_growth
        self.fine_tuning = fine_tuning

    def dynamic(self, net: Net) -> bool:
        """Whether the current epoch still sizes the network; the static part has begun when not."""
        return net.epochs is None or net.epoch <= net.epochs - int(net.epochs * self.fine_tuning)

    def penalty(self, net: Net) -> Tensor:
        if not self.dynamic(net):
            return super().penalty(net)
        return self.value * torch.stack([self.regulariser(_incoming(group)) for group in net.groups]).sum()

    def before_epoch(self, net: Net) -> None:
        counts = {group: max(self.min_growth, int(self.growth * group.width)) for group in net.groups}
        if self.dynamic(net) and any(counts.values()):
            net.grow_all({group: count for group, count in counts.items() if count}, self._fill)

    def after_epoch(self, net: Net) -> None:
        if self.dynamic(net):
            net.drop({group: self._small(group) for group in net.groups}, tolerance=float("inf"))

    @torch.no_grad()
    def _small(self, group: Group) -> Tensor:
        """Units all of whose parameters are below the threshold: (width,) bool."""
        largest = torch.stack([slot.by_unit(slot.ref.tensor, group).abs().amax(1) for slot in group.writers]).amax(0)
        return largest < self.threshold

    def _fill(self, slot: Slot, entries: Tensor) -> None:
        fresh(self.threshold, self.threshold)(slot, entries)
        if slot.role == "scale":
            entries.fill_(self.threshold)


def weighted_l1(weights: list[Tensor]) -> Tensor:
    """``sum_j j * |w_j|_1`` over units j = 1, 2, ... (eq. 1 with f(j) = j).

    Args:
        weights: tensors of shape (units, n) with the same units, such as [W, b].

    Returns:
        shape ().
    """
    per_unit = torch.stack([weight.abs().sum(1) for weight in weights]).sum(0)
    return per_unit @ torch.arange(1, len(per_unit) + 1, device=per_unit.device, dtype=per_unit.dtype)


def l21(weights: list[Tensor]) -> Tensor:
    """``sum_j ||w_j||_2`` (l2,1 of original auto-sizing, without a factor for the group's size); as ``weighted_l1``."""
    return torch.stack([weight.square().sum(1) for weight in weights]).sum(0).sqrt().sum()


def l1(weights: list[Tensor]) -> Tensor:
    """``sum_j |w_j|_1``; as ``weighted_l1``."""
    return torch.stack([weight.abs().sum() for weight in weights]).sum()


PENALTIES: dict[str, Callable[[list[Tensor]], Tensor]] = {"weighted-l1": weighted_l1, "l2,1": l21, "l1": l1}


def _incoming(group: Group) -> list[Tensor]:
    return [slot.by_unit(slot.ref.tensor, group) for slot in group.roles("row", "bias", "scale", "shift")]
