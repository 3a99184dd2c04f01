"""CIFAR-10 (Krizhevsky, Learning multiple layers of features from tiny images, 2009): 60,000 colour images, 32 x 32."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sizer.datasets.cache import cached
from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

# The home's binary edition. Its Python edition is a pickle, which can run code, and is never opened.
FILES = {
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": "sha256:"
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"
}
TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6))
TEST = ("cifar-10-batches-bin/test_batch.bin",)

_RECORD = 1 + 3 * 32 * 32


def read(folder: Path) -> Raw:
    """Read 50,000 + 10,000 images (N, 32, 32, 3) of 0..255 and labels 0..9, downloaded to `folder` the first time."""
    return cached("cifar10", folder, FILES, parse)


def parse(files: Sequence[Path]) -> Raw:
    """Read the tar of the binary edition, the only file given.

    Raises:
        DataError: A batch is missing from the tar or is no whole number of records.
    """
    with tarfile.open(files[0], "r:gz") as archive:
        x_train, y_train = _images(archive, TRAIN)
        x_test, y_test = _images(archive, TEST)
    return Raw(x_train, y_train, x_test, y_test)


def _images(archive: tarfile.TarFile, names: Sequence[str]) -> tuple[Array, Array]:
    records = np.concatenate([_records(archive, name) for name in names])
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].astype(np.int64)


def _records(archive: tarfile.TarFile, name: str) -> Array:
    """One batch (N, 3073): a label, then the red, the green and the blue plane of an image, row by row."""
    member = archive.extractfile(name) if name in archive.getnames() else None
    if member is None:
        raise DataError(f"the CIFAR-10 tar lacks {name}; download it again")
    data = member.read()
    if not data or len(data) % _RECORD:
        raise DataError(f"{name} in the CIFAR-10 tar must be records of {_RECORD} bytes, got {len(data)} bytes")
    return np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
