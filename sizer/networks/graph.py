"""Neurons and synapses without layers, after Khashin and Shemyakova (arXiv:2108.02231), which `growing` sizes.

It starts as a layered network: `dense1` to `denseN`, tanh, each fed by all of the one before. What became of it is said
by its numbers of neurons and synapses, and which they are by its weights' file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from sizer.errors import InputError
from sizer.graph import Graph

DEFAULT = (5, 5)
SIZES = ("neurons", "synapses")
"""What its history has instead of the widths of layers."""


def layers(depth: int) -> tuple[str, ...]:
    """``dense1`` to ``denseN``, for any depth of 1 or more."""
    if depth < 1:
        raise InputError(f"graph needs 1 width or more, got {depth}")
    return tuple(f"dense{i}" for i in range(1, depth + 1))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """A layered graph of tanh neurons. Weights are Glorot uniform, biases zero."""
    return Graph.layered(math.prod(input_shape), outputs, widths)


def rebuild(input_shape: tuple[int, ...], outputs: int, widths: Mapping[str, int]) -> nn.Module:
    """A graph of so many neurons and synapses, for weights that are loaded afterwards."""
    return Graph.blank(math.prod(input_shape), outputs, *(widths[size] for size in SIZES))
