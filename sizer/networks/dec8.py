"""Dec8 (Alvarez, Petersson: DecomposeMe: simplifying ConvNets for end-to-end learning, 2016) for small images.

Eight convolutions, each as a vertical and a horizontal one with ReLU between and behind: 16 widths, all free. The paper
with group sparsity starts from 512 in the later layers, and as Dec8-640 and Dec8-768 from 640 and 768: those are
``widths``. It prints no other width and no place of its poolings, so both are those of VGG-11, which has eight
convolutions, too. It has no batch normalisation; He normal weights let it train all the same. 6,683,594 parameters at
the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.vgg11 import POOLED, averaged, image_channels

DEFAULT = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)


def layers(depth: int) -> tuple[str, ...]:
    """The eight pairs, whatever the depth."""
    return pair_names(8)


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Eight times conv3x1-ReLU-conv1x3-ReLU, five times pool2 between them, then the mean and the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal, biases zero.

    Raises:
        InputError: The input is no image.
    """
    inputs = image_channels("dec8", input_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (between, width) in enumerate(zip(widths[::2], widths[1::2], strict=True), start=1):
        parts.update(pair(i, inputs, between, width, 3))
        if i in POOLED:
            parts[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs = width
    return averaged(parts, inputs, outputs)


def pair_names(pairs: int) -> tuple[str, ...]:
    """The layers of so many decomposed convolutions."""
    return tuple(f"{way}{i}" for i in range(1, pairs + 1) for way in ("vertical", "horizontal"))


def pair(i: int, inputs: int, between: int, width: int, kernel: int) -> OrderedDict[str, nn.Module]:
    """The parts of a decomposed convolution: vertical, ReLU, horizontal, ReLU, with same padding for odd kernels."""
    return OrderedDict(
        {
            f"vertical{i}": nn.Conv2d(inputs, between, (kernel, 1), padding=(kernel // 2, 0)),
            f"relu{i}v": nn.ReLU(),
            f"horizontal{i}": nn.Conv2d(between, width, (1, kernel), padding=(0, kernel // 2)),
            f"relu{i}h": nn.ReLU(),
        }
    )
