"""CIFAR-100 (Krizhevsky, Learning multiple layers of features from tiny images, 2009): 60,000 colour images, 32 x 32.

The labels are the 100 fine ones; the 20 superclasses are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sizer.datasets import cifar
from sizer.datasets.cache import cached
from sizer.datasets.raw import Raw

FILES = {
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz": "sha256:"
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
}
TRAIN = ("cifar-100-binary/train.bin",)
TEST = ("cifar-100-binary/test.bin",)
LABELS = 2  # coarse, then fine


def read(folder: Path) -> Raw:
    """Read 50,000 + 10,000 images (N, 32, 32, 3) of 0..255 and labels 0..99, downloaded to `folder` the first time."""
    return cached("cifar100", folder, FILES, parse)


def parse(files: Sequence[Path]) -> Raw:
    """Read the tar of the binary edition, the only file given."""
    return cifar.parse(files[0], TRAIN, TEST, LABELS, "CIFAR-100")
