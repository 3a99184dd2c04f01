"""Fixed width: the baselines "Fixed" and "Fixed-L2" of ShrinkNets (sec. 3.2), whose widths a study draws."""

from __future__ import annotations

import math
from typing import ClassVar

from sizer.errors import InputError
from sizer.methods.method import Method


class Fixed(Method):
    """A plain network: nothing is added to the loss, and its widths stay."""

    name = "fixed"
    takes: ClassVar[str] = "any"
    sizes: ClassVar[bool] = False
    stacks: ClassVar[bool] = True

    def __init__(self) -> None:
        self.value = 0.0


class FixedL2(Fixed):
    """A plain network under an L2 penalty, which is the optimiser's weight decay."""

    name = "fixed-l2"
    settings: ClassVar = {"weight_decay": 1e-4}

    def __init__(self, weight_decay: float = 1e-4) -> None:
        super().__init__()
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise InputError(f"weight_decay must be a number of at least 0, got {weight_decay}")
        self.weight_decay = weight_decay
