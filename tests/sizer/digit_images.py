"""Digits as pictures large enough for every network of the tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch.nn import functional as F

from sizer import datasets
from sizer.datasets import Data

WIDTHS = {"mlp": [14, 12, 10], "lenet": [6, 8, 20], "das-conv": [6, 8, 6, 8, 20]}
"""Small start widths for each network; others start with their own defaults."""


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
    return digits(16 if network == "lenet" else 8)
