"""The IDX format of MNIST and of the sets made in its likeness (LeCun, http://yann.lecun.com/exdb/mnist/)."""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

_UNSIGNED_BYTES = 8


def decode(data: bytes, name: str) -> Array:
    """Decode one file: two zero bytes, a type, the number of dimensions, big-endian sizes, then the values.

    Args:
        data: The whole file, uncompressed.
        name: What the message calls it.

    Returns:
        A uint8 array of the shape that the file states.

    Raises:
        DataError: This is no IDX file of bytes, or its length does not fit its sizes.
    """
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTES:
        raise DataError(f"{name} is not an IDX file of bytes (it begins with {data[:4].hex(' ') or 'nothing'})")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) != start + math.prod(shape):
        raise DataError(f"{name} should hold {start + math.prod(shape)} bytes for shape {shape}, got {len(data)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def parse(files: Sequence[Path]) -> Raw:
    """Read training images, training labels, test images and test labels, in this order, each gzipped."""
    return Raw(*(decode(gzip.decompress(file.read_bytes()), file.name) for file in files))
