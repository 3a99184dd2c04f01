"""VGG-11 (Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, 2015) for CIFAR.

With batch normalisation (Ioffe, Szegedy, 2015) and, in the place of its two dense layers of 4096, the mean over all
pixels. 9,228,362 parameters at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.errors import InputError

DEFAULT = (64, 128, 256, 256, 512, 512, 512, 512)

POOLED = (1, 2, 4, 6, 8)  # the convolutions that a pooling follows


def layers(depth: int) -> tuple[str, ...]:
    """The eight convolutions, whatever the depth."""
    return tuple(f"conv{i}" for i in range(1, 9))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Eight times conv3-BN-ReLU, five times pool2 between them, then the mean over all pixels and the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    inputs = image_channels("vgg11", input_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths, start=1):
        parts[f"conv{i}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        parts[f"bn{i}"] = nn.BatchNorm2d(width)
        parts[f"relu{i}"] = nn.ReLU()
        if i in POOLED:
            parts[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs = width
    return averaged(parts, inputs, outputs)


def averaged(parts: OrderedDict[str, nn.Module], inputs: int, outputs: int) -> nn.Sequential:
    """The parts, then the mean over all pixels and the Linear ``out``, with He normal weights."""
    parts["mean"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["out"] = nn.Linear(inputs, outputs)
    network = nn.Sequential(parts)
    network.apply(he)
    return network


def image_channels(family: str, input_shape: tuple[int, ...]) -> int:
    """Give the channels of an image (channels, height, width).

    Raises:
        InputError: The input is no image; the message begins with the network's name, ``family``.
    """
    if len(input_shape) != 3:
        raise InputError(
            f"{family} needs images (channels, height, width), got input shape {input_shape}; mlp takes any"
        )
    return input_shape[0]


def he(module: nn.Module) -> None:
    """Initialise one layer as networks with ReLU do: He normal over its inputs, bias zero. Others are left alone."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
