"""Dynamic auto-sizing, DAS (Cahlik, Kordik, Cepek): weighted L1, growth and removal each epoch (Algorithm 1).

The penalty is ``alpha * sum_j f(j) * |w_j|_1`` (eq. 1), by default with f(j) = j, over the incoming weights and the
bias of every unit j = 1, 2, ... of each hidden layer: later units cost more, until the last ones stay near zero and are
removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from sizer.errors import InputError, unknown
from sizer.groups import Group, Slot
from sizer.methods.method import Knob, Method, Sized
from sizer.net import Net, fresh

Weighting = Callable[[Tensor], Tensor]
"""f of eq. 1: positions (n,) -> their weights (n,)."""


class AutoSizing(Method):
    """Units are grown before each epoch and removed after it; the last part of the training is static.

    Growth, pruning, regulariser and fine-tuning are switched one by one, as in the paper's ablation (Table III):
    ``growth=0, min_growth=0``; ``pruning=False``; ``penalty="none"``; ``fine_tuning=0``.

    Where a batch normalisation rescales a layer's output, the unit's size there is its scale and shift: they are
    penalised like the weights and decide about removal. (The paper's networks have none.)

    Args:
        value: alpha.
        threshold: tau: units whose weights and bias are all smaller go, and new ones begin that small.
        growth: units grown in a layer each epoch, as a share of its width.
        min_growth: units grown in a layer each epoch at least.
        penalty: ``weighted-l1`` (the paper's), what it is compared with: ``l2,1``, ``linf,1`` (both of original
            auto-sizing) or plain ``l1``; or ``none``.
        f: the weight of the j-th unit in weighted L1: ``linear`` (the paper's), ``sqrt``, ``log``, ``square``, or a
            callable from positions (n,) to weights (n,): non-decreasing and 0 at 0.
        pruning: whether units are removed.
        fine_tuning: the share of the epochs, at the end, without penalty, growth or removal ("static fine-tuning").
            It needs the planned number of epochs (``net.epochs``); without it, all are dynamic.
    """

    name = "auto-sizing"
    grows: ClassVar[bool] = True
    stacks: ClassVar[bool] = True
    knob = Knob("alpha", 1e-6, 1e-3)
    settings: ClassVar = {
        "threshold": 1e-3,
        "growth": 0.2,
        "min_growth": 20,
        "penalty": "weighted-l1",
        "f": "linear",
        "pruning": True,
        "fine_tuning": 0.5,
    }

    def __init__(
        self,
        value: float,
        threshold: float = 1e-3,
        growth: float = 0.2,
        min_growth: int = 20,
        penalty: str = "weighted-l1",
        f: str | Weighting = "linear",
        pruning: bool = True,
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
        if f != "linear" and penalty != "weighted-l1":
            raise InputError(f"f weighs the units of weighted-l1, and {penalty} has no such weights; leave out f={f!r}")
        self.regulariser = PENALTIES[penalty]
        self.f = weighting(f)
        self.threshold = threshold
        self.growth = growth
        self.min_growth = min_growth
        self.pruning = pruning
        self.fine_tuning = fine_tuning

    def dynamic(self, net: Sized) -> bool:
        """Whether the current epoch still sizes the network; the static part has begun when not."""
        return net.epochs is None or net.epoch <= net.epochs - int(net.epochs * self.fine_tuning)

    def acts(self, net: Sized) -> bool:
        return self.dynamic(net)

    def penalty(self, net: Sized) -> Tensor:
        if not self.dynamic(net):
            return super().penalty(net)
        layers = [self.regulariser(group.incoming(), self.f) for group in net.groups]
        return (net.knob * torch.stack(layers).sum(0)).sum()

    def before_epoch(self, net: Net) -> None:
        counts = {group: max(self.min_growth, int(self.growth * group.width)) for group in net.groups}
        if self.dynamic(net) and any(counts.values()):
            net.grow_all({group: count for group, count in counts.items() if count}, self._fill)

    def after_epoch(self, net: Net) -> None:
        if self.pruning and self.dynamic(net):
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


def weighting(f: str | Weighting) -> Weighting:
    """f of eq. 1 by its name, or a callable, checked on positions 0 to 65,536.

    Raises:
        InputError: the name is unknown, or the function decreases somewhere, is negative or does not begin at 0.
    """
    if isinstance(f, str):
        if f not in WEIGHTINGS:
            raise unknown("f of auto-sizing", f, WEIGHTINGS)
        return WEIGHTINGS[f]
    at = torch.arange(2**16 + 1, dtype=torch.float64)
    values = f(at)
    if not isinstance(values, Tensor) or values.shape != at.shape:
        raise InputError(f"f must give a weight for each of the positions that it is given, got {values!r:.80}")
    if not torch.isfinite(values).all():
        raise InputError(f"f must be finite, got {float(values[~torch.isfinite(values)][0])}")
    if values[0] != 0:
        raise InputError(f"f must be 0 at 0, got f(0) = {float(values[0]):g}; subtract it")
    falls = (values.diff() < 0).nonzero()
    if len(falls):
        j = int(falls[0])
        raise InputError(
            f"f must not decrease, got f({j}) = {float(values[j]):g} and f({j + 1}) = {float(values[j + 1]):g}; later "
            "units must not cost less"
        )
    return f


def weighted_l1(weights: list[Tensor], f: Weighting) -> Tensor:
    """``sum_j f(j) * |w_j|_1`` over units j = 1, 2, ... (eq. 1).

    Args:
        weights: tensors of shape (..., units, n) with the same units, such as [W, b].
        f: gives each unit's weight; the other penalties make no use of it.

    Returns:
        shape (...).
    """
    per_unit = torch.stack([weight.abs().sum(-1) for weight in weights]).sum(0)
    return per_unit @ f(torch.arange(1, per_unit.shape[-1] + 1, device=per_unit.device, dtype=per_unit.dtype))


def l21(weights: list[Tensor], f: Weighting) -> Tensor:
    """``sum_j ||w_j||_2`` (l2,1 of original auto-sizing, without a factor for the group's size); as ``weighted_l1``."""
    lengths: Tensor = torch.linalg.vector_norm(torch.cat(weights, -1), dim=-1)  # its gradient is 0 at 0
    return lengths.sum(-1)


def linf1(weights: list[Tensor], f: Weighting) -> Tensor:
    """``sum_j max |w_j|`` (l_inf,1 of original auto-sizing); as ``weighted_l1``."""
    return torch.stack([weight.abs().amax(-1) for weight in weights]).amax(0).sum(-1)


def l1(weights: list[Tensor], f: Weighting) -> Tensor:
    """``sum_j |w_j|_1``; as ``weighted_l1``."""
    return torch.stack([weight.abs().sum((-2, -1)) for weight in weights]).sum(0)


def none(weights: list[Tensor], f: Weighting) -> Tensor:
    """No penalty; as ``weighted_l1``."""
    return weights[0].new_zeros(weights[0].shape[:-2])


PENALTIES: dict[str, Callable[[list[Tensor], Weighting], Tensor]] = {
    "weighted-l1": weighted_l1, "l2,1": l21, "linf,1": linf1, "l1": l1, "none": none,
}  # fmt: skip
WEIGHTINGS: dict[str, Weighting] = {
    "linear": torch.clone, "sqrt": torch.sqrt, "log": torch.log1p, "square": torch.square,
}  # fmt: skip
