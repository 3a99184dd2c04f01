"""CIFAR-10 (Krizhevsky, Learning multiple layers of features from tiny images, 2009): 60,000 colour images, 32 x 32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sizer.datasets import cifar
from sizer.datasets.cache import cached
from sizer.datasets.raw import Raw

FILES = {
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": "sha256:"
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"
}
TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6))
TEST = ("cifar-10-batches-bin/test_batch.bin",)
LABELS = 1


def read(folder: Path) -> Raw:
    """Read 50,000 + 10,000 images (N, 32, 32, 3) of 0..255 and labels 0..9, downloaded to `folder` the first time."""
    return cached("cifar10", folder, FILES, parse)


def parse(files: Sequence[Path]) -> Raw:
    """Read the tar of the binary edition, the only file given."""
    return cifar.parse(files[0], TRAIN, TEST, LABELS, "CIFAR-10")
