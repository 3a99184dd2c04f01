"""A picture as a function of the place: (x, y) -> brightness (Khashin and Shemyakova, arXiv:2108.02231, ex. 2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sizer.datasets.picture import grey, parted
from sizer.datasets.raw import Array, Raw

PICTURE = True


def read(folder: Path, file: Path | None = None) -> Raw:
    """Read places (N, 2), from 0 to 1 to the right and down, and brightness (N,), from 0 to 1, of every pixel.

    Args:
        folder: Not used: the default picture comes with scikit-learn.
        file: Another picture.
    """
    pixels = grey(file)
    return parted(places(*pixels.shape), pixels.ravel().astype(np.float32) / 255)


def places(height: int, width: int) -> Array:
    """Where the pixels of a picture lie, row by row: float32 (height x width, 2)."""
    down, right = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return np.stack([right.ravel(), down.ravel()], 1).astype(np.float32)
