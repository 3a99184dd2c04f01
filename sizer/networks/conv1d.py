"""A convolution net for signals (Wang, Yan, Oates: Time series classification from scratch, 2017), with pooling.

267,146 parameters at the default widths on CIFAR-10, whose images it reads as signals of 3 channels and 1024 steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.errors import InputError
from sizer.networks.vgg11 import he

DEFAULT = (128, 256, 128)

KERNELS = (7, 5, 3)  # the paper's first is 8: an even one has no middle


def layers(depth: int) -> tuple[str, ...]:
    """``conv1`` to ``convN``, for any depth of 1 or more."""
    if depth < 1:
        raise InputError(f"conv1d needs 1 width or more, got {depth}")
    return tuple(f"conv{i}" for i in range(1, depth + 1))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """conv-BN-ReLU for each width, pool2 between them, then the mean over all steps and the Linear ``out``.

    Kernels of 7, 5, and 3 from there on. (C, L) are C channels of L steps, (F,) is one of F; in an image (C, H, W) the
    H * W pixels of a channel are its steps, row by row. A pooling rounds up, so any length will do. Weights are He
    normal.
    """
    inputs = input_shape[0] if len(input_shape) > 1 else 1
    steps = nn.Flatten(2) if len(input_shape) > 1 else nn.Unflatten(1, (1, input_shape[0]))
    parts: OrderedDict[str, nn.Module] = OrderedDict(steps=steps)
    for i, width in enumerate(widths, start=1):
        if i > 1:
            parts[f"pool{i - 1}"] = nn.MaxPool1d(2, ceil_mode=True)
        kernel = KERNELS[min(i, len(KERNELS)) - 1]
        parts[f"conv{i}"] = nn.Conv1d(inputs, width, kernel, padding=kernel // 2, bias=False)
        parts[f"bn{i}"] = nn.BatchNorm1d(width)
        parts[f"relu{i}"] = nn.ReLU()
        inputs = width
    parts["mean"] = nn.AdaptiveAvgPool1d(1)
    parts["flatten"] = nn.Flatten()
    parts["out"] = nn.Linear(inputs, outputs)
    network = nn.Sequential(parts)
    network.apply(he)
    return network
