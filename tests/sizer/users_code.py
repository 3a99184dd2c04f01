"""Code as a user writes it, in files: a network with a residual sum, made of a module beside it, and its data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BLOCKS = """
import torch
from torch import nn

class Residual(nn.Module):
    def __init__(self, width, inside):
        super().__init__()
        self.first, self.second = nn.Linear(width, inside), nn.Linear(inside, width)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))
"""
MINE = """
import math
import numpy as np
from torch import nn

def net(input_shape, outputs):
    from blocks import Residual
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), 12), nn.ReLU(), Residual(12, 8),
                         nn.Linear(12, outputs))

def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 6))
    y = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
    return {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]}
"""
WIDTHS = {"1": 12, "3.first": 8}


def write(folder: Path, **texts: str) -> None:
    """Writes `mine.py` and `blocks.py`, or what stands under these or other names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"mine": MINE, "blocks": BLOCKS, **texts}.items():
        (folder / f"{name}.py").write_text(text)


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the folder the current one, with the code in it; Python's path is as before after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(folder)
    monkeypatch.chdir(folder)
    return folder
