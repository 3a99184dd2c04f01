"""ResNet-18 (He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2016) in its form for CIFAR.

The stem is a 3 x 3 convolution without stride and without pooling. 11,173,962 parameters at the default widths on
CIFAR-10.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sizer.networks.vgg11 import he, image_channels

DEFAULT = (64, 64, 64, *(128,) * 3, *(256,) * 3, *(512,) * 3)


def layers(depth: int) -> tuple[str, ...]:
    """The stem, and in each block what only that block sees; whatever the depth.

    All blocks of a stage add to one sum, so their outputs are one width. It goes by the name of the layer that runs
    first: the stem for stage 1, the first block's second convolution for the others.
    """
    later = (f"layer{stage}.{inner}" for stage in (2, 3, 4) for inner in ("0.conv1", "0.conv2", "1.conv1"))
    return ("conv1", "layer1.0.conv1", "layer1.1.conv1", *later)


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Stem, four stages of two blocks with strides 1, 2, 2, 2, the mean over all pixels, and the Linear ``out``.

    Images of any size will do. Weights are He normal.

    Raises:
        InputError: The input is no image.
    """
    stem, first, second, *later = widths
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image_channels("resnet18", input_shape), stem, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(stem),
            relu1=nn.ReLU(),
            layer1=nn.Sequential(_Block(stem, first, stem, 1), _Block(stem, second, stem, 1)),
            layer2=_stage(stem, later[:3]),
            layer3=_stage(later[1], later[3:6]),
            layer4=_stage(later[4], later[6:]),
            mean=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            out=nn.Linear(later[7], outputs),
        )
    )
    network.apply(he)
    return network


class _Block(nn.Module):
    """conv3-BN-ReLU-conv3-BN, plus its input (by a conv1-BN where the shape changes), then ReLU."""

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, hidden, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False)).append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def _stage(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    first, outputs, second = widths
    return nn.Sequential(_Block(inputs, first, outputs, 2), _Block(outputs, second, outputs, 1))
