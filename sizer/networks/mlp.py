"""Fully connected layers with ReLU, as in ShrinkNets' evaluation (protocols: ShrinkNets, Figure 2)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.errors import InputError

DEFAULT = (500, 500, 500)


def layers(depth: int) -> tuple[str, ...]:
    """``dense1`` to ``denseN``, for any depth of 1 or more."""
    if depth < 1:
        raise InputError(f"mlp needs 1 width or more, got {depth}")
    return tuple(f"dense{i}" for i in range(1, depth + 1))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Flatten, then Linear and ReLU for each width, then the Linear ``out``.

    Weights are Xavier normal with gain sqrt(2), biases zero.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = math.prod(input_shape)
    for i, width in enumerate(widths, start=1):
        parts[f"dense{i}"] = nn.Linear(inputs, width)
        parts[f"relu{i}"] = nn.ReLU()
        inputs = width
    parts["out"] = nn.Linear(inputs, outputs)
    network = nn.Sequential(parts)
    network.apply(xavier)
    return network


def xavier(module: nn.Module) -> None:
    """Initialise one layer as ShrinkNets does: Xavier normal with gain sqrt(2), bias zero. Others are left alone."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_normal_(module.weight, gain=math.sqrt(2))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
