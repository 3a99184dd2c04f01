"""U-Net (Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image segmentation, 2015), 3 levels.

With same padding and batch normalisation. It gives a value for each pixel, not one for each image. 1,864,714 parameters
at the default widths on CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizer.networks.vgg11 import he, image_channels

DEFAULT = (64, 64, 128, 128, 256, 256, 128, 128, 128, 64, 64, 64)

OUTPUT = "map"


def layers(depth: int) -> tuple[str, ...]:
    """Two convolutions a level on the way down, a transposed one and two a level on the way up; whatever the depth."""
    down = (f"encode{level}.{conv}" for level in (1, 2, 3) for conv in ("conv1", "conv2"))
    up = (name for level in (2, 1) for name in (f"up{level}", f"decode{level}.conv1", f"decode{level}.conv2"))
    return (*down, *up)


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Two conv3-BN-ReLU a level; pool2 down, transposed conv2 up and the way down's maps beside it; the conv1 ``out``.

    Pooling rounds up and what is too much on the way up is cut off, so images of any size will do. Weights are He
    normal, those of the transposed convolutions, which no ReLU follows, LeCun normal.

    Returns:
        A module from (N, channels, height, width) to (N, outputs, height, width).

    Raises:
        InputError: The input is no image.
    """
    network = _UNet(image_channels("unet", input_shape), outputs, widths)
    network.apply(_initialise)
    return network


class _UNet(nn.Module):
    def __init__(self, channels: int, outputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        high, middle, low = widths[0:2], widths[2:4], widths[4:6]
        up2, up1 = widths[6], widths[9]
        self.encode1 = _level(channels, high)
        self.encode2 = _level(high[1], middle)
        self.encode3 = _level(middle[1], low)
        self.up2 = nn.ConvTranspose2d(low[1], up2, 2, stride=2)
        self.decode2 = _level(middle[1] + up2, widths[7:9])
        self.up1 = nn.ConvTranspose2d(widths[8], up1, 2, stride=2)
        self.decode1 = _level(high[1] + up1, widths[10:12])
        self.out = nn.Conv2d(widths[11], outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        high = self.encode1(input)
        middle = self.encode2(F.max_pool2d(high, 2, ceil_mode=True))
        low = self.encode3(F.max_pool2d(middle, 2, ceil_mode=True))
        middle = self.decode2(_beside(middle, self.up2(low)))
        high = self.decode1(_beside(high, self.up1(middle)))
        result: Tensor = self.out(high)
        return result


def _beside(skipped: Tensor, risen: Tensor) -> Tensor:
    """Both maps' channels, at the size of the first."""
    height, width = skipped.shape[-2:]
    return torch.cat([skipped, risen[..., :height, :width]], 1)


def _level(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths, start=1):
        parts[f"conv{i}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        parts[f"bn{i}"] = nn.BatchNorm2d(width)
        parts[f"relu{i}"] = nn.ReLU()
        inputs = width
    return nn.Sequential(parts)


def _initialise(module: nn.Module) -> None:
    he(module)
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=module.in_channels**-0.5)  # each pixel comes from one input pixel
        if module.bias is not None:
            nn.init.zeros_(module.bias)
