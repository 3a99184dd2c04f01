"""The convolutional network of DARN (Gandhi, Bandaru, sec. 7.3): four convolutions and one linear layer.

The paper prunes the first three convolutions (``activity`` with ``layers="conv1,conv2,conv3"``). It gives no widths:
these are ours. 245,738 parameters at the default widths on MNIST.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.darn_mlp import pooled
from sizer.networks.vgg11 import he, image_channels

DEFAULT = (32, 64, 128, 128)


def layers(depth: int) -> tuple[str, ...]:
    """The four convolutions, whatever the depth."""
    return ("conv1", "conv2", "conv3", "conv4")


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Four times conv3-BN-ReLU-pool2, then the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    inputs = image_channels("darn-cnn", input_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths, start=1):
        parts[f"conv{i}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        parts[f"bn{i}"] = nn.BatchNorm2d(width)
        parts[f"relu{i}"] = nn.ReLU()
        parts[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs = width
    parts["flatten"] = nn.Flatten()
    parts["out"] = nn.Linear(inputs * pooled(input_shape[1], 4) * pooled(input_shape[2], 4), outputs)
    network = nn.Sequential(parts)
    network.apply(he)
    return network
