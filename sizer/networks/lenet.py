"""LeNet (LeCun et al., 1998) with ReLU, as in ShrinkNets' evaluation (protocols: ShrinkNets, Figure 2)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.errors import InputError
from sizer.networks.mlp import xavier

DEFAULT = (50, 50, 5000)

SMALLEST = 16  # 16 -> conv5 12 -> pool2 6 -> conv5 2 -> pool2 1


def layers(depth: int) -> tuple[str, ...]:
    """The two convolutions and the dense layer, whatever the depth."""
    return ("conv1", "conv2", "dense")


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Twice conv5-ReLU-pool2 without padding, then dense-ReLU and the Linear ``out``.

    Weights are Xavier normal with gain sqrt(2), biases zero.

    Raises:
        InputError: The input is no image of at least 16 x 16, so nothing would be left to pool.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < SMALLEST:
        raise InputError(
            f"lenet needs images (channels, height, width) of {SMALLEST} x {SMALLEST} or more, "
            f"got input shape {input_shape}; mlp takes any"
        )
    channels, height, width = input_shape
    conv1, conv2, dense = widths
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, conv1, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(conv1, conv2, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dense=nn.Linear(conv2 * _left(height) * _left(width), dense),
            relu3=nn.ReLU(),
            out=nn.Linear(dense, outputs),
        )
    )
    network.apply(xavier)
    return network


def _left(size: int) -> int:
    """Pixels of a side that are left after both conv5 and both pool2."""
    return ((size - 4) // 2 - 4) // 2
