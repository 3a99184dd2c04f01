"""Dec3 (Alvarez, Salzmann: Learning the number of neurons in deep networks, 2016): characters by 1-D filters.

The three convolutions of Jaderberg, Vedaldi and Zisserman (Deep features for text spotting, 2014), each as a vertical
and a horizontal one, with max pooling in the place of maxout, and one dense layer. The paper prints that the last two
convolutions start from 512; the other widths are those of the 2-D network before its maxouts, and the kernels are its
9, 9 and 8, the last as 7 because an even one has no middle. 2,720,746 parameters at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.dec8 import pair, pair_names
from sizer.networks.vgg11 import he, image_channels

DEFAULT = (96, 96, 128, 128, 512, 512)

KERNELS = (9, 9, 7)


def layers(depth: int) -> tuple[str, ...]:
    """The three pairs, whatever the depth."""
    return pair_names(3)


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Three times a vertical convolution, ReLU, a horizontal one, ReLU and pool2, then flatten and the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal, biases zero.

    Raises:
        InputError: The input is no image.
    """
    inputs, *sides = image_channels("dec3", input_shape), *input_shape[1:]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, kernel in enumerate(KERNELS, start=1):
        between, width = widths[2 * i - 2], widths[2 * i - 1]
        parts.update(pair(i, inputs, between, width, kernel))
        parts[f"pool{i}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs, sides = width, [(side + 1) // 2 for side in sides]
    parts["flatten"] = nn.Flatten()
    parts["out"] = nn.Linear(inputs * sides[0] * sides[1], outputs)
    network = nn.Sequential(parts)
    network.apply(he)
    return network
