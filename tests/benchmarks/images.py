"""What most rows train: Fashion-MNIST or MNIST, and networks of fully connected layers on them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import torch
from torch import nn

from sizer import datasets, networks
from sizer.datasets import Data


@cache
def first(name: str, training: int = 48_000, others: int = 12_000) -> Data:
    """The first images of each part of a data set; the validation part has 12,000, the test part 10,000 at most."""
    data = datasets.load(name)
    parts = {f"{a}_{part}": getattr(data, f"{a}_{part}")[:n] for a in "xy"
             for part, n in (("train", training), ("val", others), ("test", others))}  # fmt: skip
    return replace(data, **parts)


fashion = partial(first, "fashion_mnist")


def mlp(data: Data, *widths: int) -> nn.Module:
    """The network with the weights of seed 0."""
    torch.manual_seed(0)
    return networks.build("mlp", data.input_shape, data.outputs, list(widths))
