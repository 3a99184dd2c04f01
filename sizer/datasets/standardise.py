"""From raw numbers to what a network is fed: channels first, mean 0 and standard deviation 1 on the training rows.

Everything goes by blocks of rows, so that beside the raw array and the result there is never a third copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sizer.datasets.raw import Array
from sizer.datasets.split import Rows
from sizer.errors import DataError

_BLOCK = 1 << 16  # values worked on at a time: small enough to stay in a core's cache


@dataclass(frozen=True)
class Scale:
    """How raw numbers become standardised ones: ``(raw / divisor - mean) / std``.

    Attributes:
        kind: "image" (a mean and std a channel; made channels first) or "table" (a mean and std a column).
        divisor: 255 for images of bytes, else 1.
        mean: (channels,) or (columns,), after the division.
        std: The same shape; 1 where all training values are equal.
    """

    kind: str
    divisor: float
    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Give the four in a form that JSON keeps exactly."""
        return {"kind": self.kind, "divisor": self.divisor, "mean": self.mean.tolist(), "std": self.std.tolist()}

    def apply(self, array: Array, rows: Rows | None = None) -> Tensor:
        """Standardise rows of an array.

        Args:
            array: Raw values (N, F), (N, H, W) or (N, H, W, C).
            rows: The rows to take, (n,); all where None.

        Returns:
            A contiguous float32 tensor (n, F), (n, 1, H, W) or (n, C, H, W).
        """
        if rows is None:
            rows = np.arange(len(array))
        out = np.empty((len(rows), *_planes(array[:1]).shape[1:]), np.float32)
        mean, std = self.mean[:, None], self.std[:, None]
        done = 0
        for block in _blocks(array, rows):
            block /= self.divisor
            block -= mean
            block /= std
            out[done : done + len(block)] = block
            done += len(block)
        shape = () if array.ndim == 2 else array.shape[1:3]
        return torch.from_numpy(out.reshape(len(rows), len(self.mean), *shape))


def measure(array: Array, rows: Rows, name: str) -> Scale:
    """Find the scale of the training rows.

    Args:
        array: Raw values (N, F), (N, H, W) or (N, H, W, C).
        rows: The training rows, (n,).
        name: What the message calls the array.

    Raises:
        DataError: The values are too large for a mean and a standard deviation.
    """
    # Sums are of differences from a first value: exact for a constant column, and no digits lost far from zero.
    first = _planes(array[rows[:1]])[0, :, :1].astype(np.float64)
    total = np.zeros(len(first))
    squares = np.zeros(len(first))
    count = len(rows) * _planes(array[:1]).shape[2]
    with np.errstate(over="ignore", invalid="ignore"):
        for block in _blocks(array, rows):
            block -= first
            total += block.sum((0, 2))
        offset = total / count
        for block in _blocks(array, rows):
            block -= first
            block -= offset[:, None]
            squares += np.square(block, out=block).sum((0, 2))
    image = array.ndim > 2
    divisor = 255.0 if image and array.dtype == np.uint8 else 1.0
    mean, std = (first[:, 0] + offset) / divisor, np.sqrt(squares / count) / divisor
    if not np.isfinite(std).all():
        raise DataError(f"{name} holds values too large to standardise; divide them by a constant first")
    std[std == 0] = 1.0
    return Scale("image" if image else "table", divisor, mean, std)


def _planes(array: Array) -> Array:
    """View rows as (N, channels, pixels); a table's columns are channels of one pixel."""
    if array.ndim == 2:
        return array[:, :, None]
    pixels = array.reshape(len(array), array.shape[1] * array.shape[2], -1)
    return pixels.transpose(0, 2, 1)


def _blocks(array: Array, rows: Rows) -> Iterator[NDArray[np.float64]]:
    """Give rows as contiguous float64 planes (n, channels, pixels), a block of them at a time."""
    step = max(1, _BLOCK // array[0].size)
    for start in range(0, len(rows), step):
        yield _planes(array[rows[start : start + step]]).astype(np.float64, order="C")
