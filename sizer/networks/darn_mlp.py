"""The fully connected network of DARN (Gandhi, Bandaru, sec. 7.2): two convolutions with pooling, then linear layers.

The paper prunes the first four of its five linear layers (``activity`` with ``layers="dense"``). It gives no widths:
these are ours. 981,258 parameters at the default widths on MNIST.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.vgg11 import he, image_channels

DEFAULT = (16, 32, 512, 256, 128, 64)


def layers(depth: int) -> tuple[str, ...]:
    """The two convolutions and the four hidden linear layers, whatever the depth."""
    return ("conv1", "conv2", "dense1", "dense2", "dense3", "dense4")


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Twice conv3-ReLU-pool2, four times Linear-ReLU, then the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    inputs = image_channels("darn-mlp", input_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths[:2], start=1):
        parts[f"conv{i}"] = nn.Conv2d(inputs, width, 3, padding=1)
        parts[f"relu{i}"] = nn.ReLU()
        parts[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs = width
    parts["flatten"] = nn.Flatten()
    inputs *= pooled(input_shape[1], 2) * pooled(input_shape[2], 2)
    for i, width in enumerate(widths[2:], start=1):
        parts[f"dense{i}"] = nn.Linear(inputs, width)
        parts[f"relu{i + 2}"] = nn.ReLU()
        inputs = width
    parts["out"] = nn.Linear(inputs, outputs)
    network = nn.Sequential(parts)
    network.apply(he)
    return network


def pooled(side: int, times: int) -> int:
    """Pixels of a side that are left after so many poolings by 2 that round up."""
    for _ in range(times):
        side = (side + 1) // 2
    return side
