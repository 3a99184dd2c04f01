"""Digits (UCI, Alpaydin and Kaynak 1998, as scikit-learn ships it): 1,797 grey digits of 8 x 8. Needs no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sizer.datasets.raw import Raw
from sizer.datasets.split import split

TEST_SHARE = 0.2
TEST_SEED = 1797


def read(folder: Path) -> Raw:
    """Read images (N, 8, 8) of 0..16 and labels 0..9, parted 80 to 20 into training and test, always the same way.

    Args:
        folder: Not used: the data come with scikit-learn.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn ships no types

    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    train, test = split(len(x), TEST_SHARE, TEST_SEED, y, "digits")
    return Raw(x[train], y[train], x[test], y[test])
