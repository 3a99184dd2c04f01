"""What a method is, as the loop sees it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sizer.errors import InputError

if TYPE_CHECKING:
    from sizer.net import Net


@dataclass(frozen=True)
class Knob:
    """The one number that a study may sweep for a method, on a log scale, under the paper's name."""

    name: str
    low: float
    high: float


class Method:
    """Sizes a network while it trains. Stateless but for settings: what belongs to a network stands in its ``Net``.

    Attributes:
        name: as in plans and on the command line.
        knob: the one knob, or None for a baseline.
        sizes: whether widths change.
        packs: whether several networks may train as one program (``sizer.packs``).
        settings: the constants that may be set, with their defaults.
        gate_rate: the gates' learning rate over that of the weights.
        weight_decay: L2 decay that the method asks of the optimiser.
        value: the knob's value; may be changed while training.
    """

    name: ClassVar[str]
    knob: ClassVar[Knob | None] = None
    sizes: ClassVar[bool] = True
    packs: ClassVar[bool] = False
    settings: ClassVar[Mapping[str, Any]] = {}
    gate_rate: float = 1.0
    weight_decay: float = 0.0
    value: float = 0.0

    def __init__(self, value: float) -> None:
        self.set_knob(value)

    def set_knob(self, value: float) -> None:
        """Gives the knob another value, for the steps to come.

        Raises:
            InputError: there is no knob, or the value is not positive.
        """
        if self.knob is None:
            raise InputError(f"{self.name} has no knob to set, got {value}")
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{self.knob.name} must be a positive number, got {value}")
        self.value = value

    def check_epochs(self, epochs: int) -> None:
        """Whether a training of so many epochs reaches the method's sizing.

        Raises:
            InputError: it ends before; says from how many epochs on it does not.
        """

    def prepare(self, net: Net) -> None:
        """Inserts gates and first values."""

    def penalty(self, net: Net) -> Tensor:
        """What is added to the loss; shape ()."""
        return torch.zeros((), device=next(net.module.parameters()).device)

    def after_step(self, net: Net) -> None:
        """What follows each optimiser step: proximal steps, removal on the way."""

    def before_epoch(self, net: Net) -> None:
        """Growth."""

    def after_epoch(self, net: Net) -> None:
        """Removal."""

    def finish(self, net: Net) -> None:
        """Leaves an ordinary dense module with the same outputs."""
        if net.gates is not None:
            net.gates.remove()
            net.gates = None
