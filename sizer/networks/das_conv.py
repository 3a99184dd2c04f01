"""The convolutional network of dynamic auto-sizing, DAS (protocols: Dynamic auto-sizing)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sizer.errors import InputError

DEFAULT = (100, 100, 100, 100, 100)


def layers(depth: int) -> tuple[str, ...]:
    """The four convolutions and the dense layer, whatever the depth."""
    return ("conv1", "conv2", "conv3", "conv4", "dense")


def build(input_shape: tuple[int, ...], outputs: int, widths: Sequence[int]) -> nn.Module:
    """Four conv3 with strides 1, 2, 1, 2 and dropout .2 and .5 after the strided ones, then dense and ``out``.

    Same padding (a stride of 2 halves a side, rounded up), SELU after all but ``out``, LeCun normal weights (standard
    deviation 1 / sqrt(fan in)), biases zero. The paper's softmax is part of the loss: ``out`` returns logits.

    Raises:
        InputError: The input is no image.
    """
    if len(input_shape) != 3:
        raise InputError(
            f"das-conv needs images (channels, height, width), got input shape {input_shape}; mlp takes any"
        )
    channels, height, width = input_shape
    conv1, conv2, conv3, conv4, dense = widths
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, conv1, 3, padding=1),
            selu1=nn.SELU(),
            conv2=nn.Conv2d(conv1, conv2, 3, stride=2, padding=1),
            selu2=nn.SELU(),
            dropout1=nn.Dropout(0.2),
            conv3=nn.Conv2d(conv2, conv3, 3, padding=1),
            selu3=nn.SELU(),
            conv4=nn.Conv2d(conv3, conv4, 3, stride=2, padding=1),
            selu4=nn.SELU(),
            dropout2=nn.Dropout(0.5),
            flatten=nn.Flatten(),
            dense=nn.Linear(conv4 * _left(height) * _left(width), dense),
            selu5=nn.SELU(),
            out=nn.Linear(dense, outputs),
        )
    )
    network.apply(lecun)
    return network


def _left(size: int) -> int:
    """Pixels of a side that are left after both strides of 2."""
    return ((size + 1) // 2 + 1) // 2


def lecun(module: nn.Module) -> None:
    """Initialise one layer as DAS does: LeCun normal over its inputs, bias zero. Others are left alone."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
