"""The binary edition of the CIFAR sets (https://www.cs.toronto.edu/~kriz/cifar.html): a tar of batches of records.

The home's Python edition is a pickle, which can run code, and is never opened.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

_PIXELS = 3 * 32 * 32


def parse(file: Path, train: Sequence[str], test: Sequence[str], labels: int, name: str) -> Raw:
    """Read the tar.

    Args:
        file: The gzipped tar.
        train: The training batches in it.
        test: The test batches.
        labels: Bytes of labels that a record begins with; the last of them counts.
        name: What messages call the data set.

    Returns:
        Images (N, 32, 32, 3) of 0..255 and labels (N,).

    Raises:
        DataError: A batch is missing from the tar or is no whole number of records.
    """
    with tarfile.open(file, "r:gz") as archive:
        x_train, y_train = _images(archive, train, labels, name)
        x_test, y_test = _images(archive, test, labels, name)
    return Raw(x_train, y_train, x_test, y_test)


def _images(archive: tarfile.TarFile, batches: Sequence[str], labels: int, name: str) -> tuple[Array, Array]:
    records = np.concatenate([_records(archive, batch, labels, name) for batch in batches])
    planes = records[:, labels:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, labels - 1].astype(np.int64)


def _records(archive: tarfile.TarFile, batch: str, labels: int, name: str) -> Array:
    """One batch: labels, then the red, the green and the blue plane of an image, row by row."""
    size = labels + _PIXELS
    member = archive.extractfile(batch) if batch in archive.getnames() else None
    if member is None:
        raise DataError(f"the {name} tar lacks {batch}; download it again")
    data = member.read()
    if not data or len(data) % size:
        raise DataError(f"{batch} in the {name} tar must be records of {size} bytes, got {len(data)} bytes")
    return np.frombuffer(data, np.uint8).reshape(-1, size)
