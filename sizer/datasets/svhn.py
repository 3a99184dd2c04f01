"""SVHN, cropped digits (Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011).

99,289 colour images, 32 x 32. The 531,131 easier ones of the home's "extra" part are left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sizer.datasets.cache import cached
from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

HOME = "http://ufldl.stanford.edu/housenumbers"
FILES = {
    f"{HOME}/train_32x32.mat": "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    f"{HOME}/test_32x32.mat": "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}


def read(folder: Path) -> Raw:
    """Read 73,257 + 26,032 images (N, 32, 32, 3) of 0..255 and labels 0..9, downloaded to `folder` the first time."""
    return cached("svhn", folder, FILES, parse)


def parse(files: Sequence[Path]) -> Raw:
    """Read the training and the test file, in this order.

    Raises:
        DataError: A file is no MATLAB file of the arrays X (32, 32, 3, N) and y (N, 1), or scipy is missing.
    """
    return Raw(*_images(files[0]), *_images(files[1]))


def _images(file: Path) -> tuple[Array, Array]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError:
        raise DataError("svhn comes as MATLAB files, which need scipy: pip install scipy") from None
    try:
        arrays = loadmat(file)
        x, y = arrays["X"], arrays["y"]
    # What loadmat raised on damaged files, and KeyError for one of other arrays.
    except (MatReadError, ValueError, TypeError, KeyError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{file.name} is not a MATLAB file of X and y ({error}); download it again") from None
    if x.shape != (32, 32, 3, y.size) or x.dtype != np.uint8:
        raise DataError(f"{file.name}: X must be uint8 (32, 32, 3, {y.size}), as y says, got {x.dtype} {x.shape}")
    # The home writes the digit 0 as 10.
    return np.ascontiguousarray(x.transpose(3, 0, 1, 2)), y.reshape(-1).astype(np.int64) % 10
