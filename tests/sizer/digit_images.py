"""Digits as pictures large enough for every network of the tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch.nn import functional as F

from sizer import datasets
from sizer.datasets import Data

WIDTHS = {
    "mlp": [14, 12, 10],
    "lenet": [6, 8, 20],
    "das-conv": [6, 8, 6, 8, 20],
    "das-mlp": [14, 12, 10, 9, 11],
    "bnet-c": [5, 6, 7, 6, 8, 7, 6, 8, 7, 9],
    "dec3": [6, 5, 7, 6, 8, 7],
    "dec8": [5, 6, 7, 6, 8, 7, 6, 8, 7, 6, 8, 7, 6, 8, 7, 9],
    "conv1d": [6, 8, 7],
    "darn-cnn": [6, 5, 7, 8],
    "darn-mlp": [6, 5, 14, 12, 10, 8],
    "densenet": [6, *[5, 4] * 6, 7, *[5, 4] * 6, 6, *[5, 4] * 6],
    "mobilenetv2": [6, 5, *[7, 5, 6] * 2, *[7, 6, 5] * 5, 6, 8],
    "resnet18": [6, 4, 5, *[6, 7, 5] * 3],
    "unet": [4, 5, 6, 5, 7, 6, 4, 5, 6, 4, 6, 5],
    "vgg11": [5, 6, 7, 6, 8, 7, 6, 8],
    "vit": [4, 8, 5, 6, 4, 7] * 2,
}
"""Small start widths for each network; others start with their own defaults."""

PIXELS = {"lenet": 16}
"""The side of the pictures, where 8 is too small."""


@cache
def digits(pixels: int = 8, samples: int = 400) -> Data:
    """scikit-learn's digits, scaled up, with at most ``samples`` training images."""
    data = datasets.load("digits")

    def scaled(part: str, n: int | None = None) -> dict[str, object]:
        x, y = getattr(data, f"x_{part}")[:n], getattr(data, f"y_{part}")[:n]
        return {f"x_{part}": F.interpolate(x, (pixels, pixels)), f"y_{part}": y}

    return replace(data, **scaled("train", samples), **scaled("val"), **scaled("test"), input_shape=(1, pixels, pixels))


def pictures(network: str) -> Data:
    """Digits at the size that a network needs."""
    return digits(PIXELS.get(network, 8))
