"""MNIST (LeCun et al., Gradient-based learning applied to document recognition, 1998): 70,000 grey digits, 28 x 28."""

from __future__ import annotations

from pathlib import Path

from sizer.datasets import idx
from sizer.datasets.cache import cached
from sizer.datasets.raw import Raw

HOME = "https://ossci-datasets.s3.amazonaws.com/mnist"
FILES = {
    f"{HOME}/train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    f"{HOME}/train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    f"{HOME}/t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    f"{HOME}/t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}


def read(folder: Path) -> Raw:
    """Read 60,000 + 10,000 images (N, 28, 28) of 0..255 and labels 0..9, downloaded to `folder` the first time."""
    return cached("mnist", folder, FILES, idx.parse)
