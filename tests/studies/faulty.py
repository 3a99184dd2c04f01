"""A network of a user's own that fails while it trains, in the way that its first layer's width says."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _raises() -> None:
    raise ValueError("a user's bug")


FAULTS: dict[int, Callable[[], object]] = {
    4: _raises,
    5: lambda: bytearray(10**15),
    6: lambda: torch.empty(10**15),
    7: lambda: sys.exit("a user's bug"),
    8: lambda: os._exit(3),
    9: lambda: ctypes.string_at(0),
    10: lambda: time.sleep(10**6),
    # Backtracks for ever, and holds Python's lock.
    11: lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
}


class Faulty(nn.Module):
    """One hidden layer; 12 units do no harm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 12)
        self.last = nn.Linear(12, outputs)

    def forward(self, x: Tensor) -> Tensor:
        # Not while it is looked at, which two rows are enough for.
        if self.training and len(x) > 2 and self.first.out_features in FAULTS:
            FAULTS[self.first.out_features]()
        return self.last(torch.relu_(self.first(x.flatten(1))))


def build(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """The network, as a plan names it."""
    return Faulty(torch.Size(shape).numel(), outputs)
