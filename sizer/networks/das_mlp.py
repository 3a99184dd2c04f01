"""The dense network of dynamic auto-sizing, DAS, for the 15-puzzle (protocols: Dynamic auto-sizing, Fig. 1)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.das_conv import lecun

DEFAULT = (50, 50, 50, 50, 50)


def layers(depth: int) -> tuple[str, ...]:
    """The five dense layers, whatever the depth."""
    return tuple(f"dense{i}" for i in range(1, 6))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Flatten, then Linear and SELU for each width, then the Linear ``out``. Weights are LeCun normal, biases zero."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = math.prod(input_shape)
    for i, width in enumerate(widths, start=1):
        parts[f"dense{i}"] = nn.Linear(inputs, width)
        parts[f"selu{i}"] = nn.SELU()
        inputs = width
    parts["out"] = nn.Linear(inputs, outputs)
    network = nn.Sequential(parts)
    network.apply(lecun)
    return network
