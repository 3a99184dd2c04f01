"""MobileNetV2 (Sandler et al.: MobileNetV2: inverted residuals and linear bottlenecks, 2018) for CIFAR.

The strides of the stem and of the second stage are 1, so that a 32 x 32 image ends as 4 x 4. 2,236,682 parameters at
the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from sizer.networks.vgg11 import he, image_channels

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The paper's table 2: expansion, channels, blocks, and the stride of the first block."""

STEM, HEAD = 32, 1280


def _table() -> Iterator[tuple[str, int]]:
    """Each width by the layer that makes it first, with its default."""
    yield "stem", STEM
    inputs, block = STEM, 0
    for expansion, channels, repeats, _ in STAGES:
        for repeat in range(repeats):
            if expansion > 1:
                yield f"blocks.{block}.expand", expansion * inputs
            if repeat == 0:
                yield f"blocks.{block}.project", channels
            inputs, block = channels, block + 1
    yield "head", HEAD


DEFAULT = tuple(width for _, width in _table())


def layers(depth: int) -> tuple[str, ...]:
    """Stem, each block's expansion, each stage's sum, and head, whatever the depth.

    A depthwise convolution has the width of the layer before it. All blocks of a stage add to one sum, so their
    outputs are one width, by the name of the first block's projection.
    """
    return tuple(name for name, _ in _table())


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Stem, 17 inverted residual blocks, the head's conv1, the mean over all pixels, and the Linear ``out``.

    Images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    width = dict(zip(layers(len(widths)), widths, strict=True))
    inputs, blocks = width["stem"], nn.Sequential()
    for _, _, repeats, stride in STAGES:
        summed = width[f"blocks.{len(blocks)}.project"]
        for repeat in range(repeats):
            hidden = width.get(f"blocks.{len(blocks)}.expand")
            blocks.append(_Block(inputs, hidden, summed, 1 if repeat else stride, adds=repeat > 0))
            inputs = summed
    network = nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(image_channels("mobilenetv2", input_shape), width["stem"], 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width["stem"]),
            relu1=nn.ReLU6(),
            blocks=blocks,
            head=nn.Conv2d(inputs, width["head"], 1, bias=False),
            bn2=nn.BatchNorm2d(width["head"]),
            relu2=nn.ReLU6(),
            mean=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            out=nn.Linear(width["head"], outputs),
        )
    )
    network.apply(he)
    return network


class _Block(nn.Sequential):
    """conv1-BN-ReLU6 to ``hidden`` (None: there is none), depthwise conv3-BN-ReLU6, conv1-BN; plus its input."""

    def __init__(self, inputs: int, hidden: int | None, outputs: int, stride: int, *, adds: bool) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        inside = hidden or inputs
        if hidden:
            parts["expand"] = nn.Conv2d(inputs, inside, 1, bias=False)
            parts["bn1"] = nn.BatchNorm2d(inside)
            parts["relu1"] = nn.ReLU6()
        parts["depthwise"] = nn.Conv2d(inside, inside, 3, stride, padding=1, groups=inside, bias=False)
        parts["bn2"] = nn.BatchNorm2d(inside)
        parts["relu2"] = nn.ReLU6()
        parts["project"] = nn.Conv2d(inside, outputs, 1, bias=False)
        parts["bn3"] = nn.BatchNorm2d(outputs)
        super().__init__(parts)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self:
            y = part(y)
        return x + y if self.adds else y
