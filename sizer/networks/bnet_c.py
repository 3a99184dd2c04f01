"""BNet^C (Alvarez, Salzmann: Learning the number of neurons in deep networks, 2016): VGG-B with one dense layer.

VGG-B (Simonyan, Zisserman, 2015) without its first two dense layers, for small images: what its five poolings leave is
averaged over its pixels, of which an image of 32 x 32 has one. Like VGG-B it has biases and no batch normalisation; He
normal weights let it train all the same. 9,410,122 parameters at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.networks.vgg11 import averaged, image_channels

DEFAULT = (64, 64, 128, 128, 256, 256, 512, 512, 512, 512)


def layers(depth: int) -> tuple[str, ...]:
    """The ten convolutions, whatever the depth."""
    return tuple(f"conv{i}" for i in range(1, 11))


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Five times two conv3-ReLU and pool2, then the mean over all pixels and the Linear ``out``.

    A pooling rounds up, so images of any size will do. Weights are He normal, biases zero.

    Raises:
        InputError: The input is no image.
    """
    inputs = image_channels("bnet-c", input_shape)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths, start=1):
        parts[f"conv{i}"] = nn.Conv2d(inputs, width, 3, padding=1)
        parts[f"relu{i}"] = nn.ReLU()
        if i % 2 == 0:
            parts[f"pool{i // 2}"] = nn.MaxPool2d(2, ceil_mode=True)
        inputs = width
    return averaged(parts, inputs, outputs)
