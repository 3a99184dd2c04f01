"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747): 70,000 grey articles of clothing of 28 x 28."""

from __future__ import annotations

from pathlib import Path

from sizer.datasets import idx
from sizer.datasets.cache import cached
from sizer.datasets.raw import Raw

HOME = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FILES = {
    f"{HOME}/train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    f"{HOME}/train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    f"{HOME}/t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    f"{HOME}/t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}


def read(folder: Path) -> Raw:
    """Read 60,000 + 10,000 images (N, 28, 28) of 0..255 and labels 0..9, downloaded to `folder` the first time."""
    return cached("fashion_mnist", folder, FILES, idx.parse)
