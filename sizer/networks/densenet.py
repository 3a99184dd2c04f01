"""DenseNet-BC of 40 layers and growth 12 (Huang et al.: Densely connected convolutional networks, 2017) for CIFAR.

176,122 parameters at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizer.networks.vgg11 import averaged, image_channels

BLOCKS, LAYERS, GROWTH = 3, 6, 12


def _table() -> Iterator[tuple[str, int]]:
    """Each layer with its default width: bottlenecks of four times the growth, transitions of half their inputs."""
    channels = 2 * GROWTH
    yield "conv1", channels
    for block in range(1, BLOCKS + 1):
        for layer in range(LAYERS):
            yield f"block{block}.{layer}.conv1", 4 * GROWTH
            yield f"block{block}.{layer}.conv2", GROWTH
        channels += LAYERS * GROWTH
        if block < BLOCKS:
            channels //= 2
            yield f"transition{block}.conv", channels


DEFAULT = tuple(width for _, width in _table())


def layers(depth: int) -> tuple[str, ...]:
    """All convolutions, whatever the depth: each layer of a block has a bottleneck and its growth of its own."""
    return tuple(name for name, _ in _table())


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """conv3, three blocks with transitions between them, then BN-ReLU, the mean over all pixels and the Linear ``out``.

    A transition's pooling rounds up, so images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    width = dict(zip(layers(len(widths)), widths, strict=True))
    inputs = width["conv1"]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = nn.Conv2d(image_channels("densenet", input_shape), inputs, 3, padding=1, bias=False)
    for block in range(1, BLOCKS + 1):
        dense = nn.Sequential()
        for layer in range(LAYERS):
            hidden, growth = (width[f"block{block}.{layer}.{conv}"] for conv in ("conv1", "conv2"))
            dense.append(_Layer(inputs, hidden, growth))
            inputs += growth
        parts[f"block{block}"] = dense
        if block < BLOCKS:
            halved = width[f"transition{block}.conv"]
            parts[f"transition{block}"] = _transition(inputs, halved)
            inputs = halved
    parts["bn"] = nn.BatchNorm2d(inputs)
    parts["relu"] = nn.ReLU()
    return averaged(parts, inputs, outputs)


class _Layer(nn.Module):
    """BN-ReLU-conv1 to ``hidden``, BN-ReLU-conv3 to ``growth``, behind its input."""

    def __init__(self, inputs: int, hidden: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(y)))], 1)


def _transition(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            bn=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(),
            conv=nn.Conv2d(inputs, outputs, 1, bias=False),
            pool=nn.AvgPool2d(2, ceil_mode=True),
        )
    )
