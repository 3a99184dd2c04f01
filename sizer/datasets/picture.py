"""Pictures in grey, as the data sets that are made of one picture read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sizer.datasets.raw import Array, Raw
from sizer.datasets.split import split
from sizer.errors import DataError

LEAST = 8
"""Pixels of a side at least."""
SAMPLE = "china.jpg"
"""Ships with scikit-learn: a temple in China, 640 x 427, photographed by Howard Kwok (Creative Commons 2.0)."""
TEST_SHARE, TEST_SEED = 0.2, 682


def grey(file: Path | None = None) -> Array:
    """Read a picture as brightness, uint8 (H, W), of 0 to 255; scikit-learn's `SAMPLE` where no file is given.

    Raises:
        DataError: The file is not there, is no picture, or has under `LEAST` pixels in height or width.
    """
    from PIL import Image, UnidentifiedImageError

    if file is None:
        import sklearn.datasets  # type: ignore[import-untyped]  # scikit-learn ships no types

        file = Path(sklearn.datasets.__file__).parent / "images" / SAMPLE
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("L"))
    except FileNotFoundError:
        raise DataError(f"no picture at {file}: give the path of a picture, as PNG or JPEG") from None
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{file} is not a picture that can be read ({type(error).__name__}); give a PNG or JPEG"
        ) from None
    if min(pixels.shape) < LEAST:
        height, width = pixels.shape
        raise DataError(f"{file} is too small: {width} x {height} pixels; give {LEAST} x {LEAST} or more")
    return pixels


def parted(x: Array, y: Array) -> Raw:
    """Rows parted 80 to 20 into training and test, always the same way."""
    train, test = split(len(x), TEST_SHARE, TEST_SEED, None, "picture")
    return Raw(x[train], y[train], x[test], y[test])
