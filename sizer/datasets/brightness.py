"""A pixel's brightness from those before it, of any picture in grey (Khashin and Shemyakova, arXiv:2108.02231, ex. 1).

A row is a pixel *, read after those above it and those to its left. The table of the five pixels that the paper takes
is empty in its text; here they are, as (right, down) from *: 0 (-1, 0), 1 (0, -1), 2 (-1, -1), 3 (1, -1), 4 (-2, 0).
As there, pixel 0 is taken from all others, and all is divided by 255: four numbers in, one out. A loss of the paper's,
in brightness squared, is (1 - R^2) times the target's variance times 255^2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sizer.datasets.picture import grey, parted
from sizer.datasets.raw import Raw

PICTURE = True
BEFORE = ((-1, 0), (0, -1), (-1, -1), (1, -1), (-2, 0))
"""Where the pixels before * lie: right and down of it."""


def read(folder: Path, file: Path | None = None) -> Raw:
    """Read differences (N, 4) and the pixel's own (N,), from -1 to 1, of all pixels that have all five before them.

    Args:
        folder: Not used: the default picture comes with scikit-learn.
        file: Another picture.
    """
    pixels = grey(file).astype(np.float32) / 255
    height, width = pixels.shape
    here = pixels[1:, 2 : width - 1]
    first, *others = (pixels[1 + down : height + down, 2 + right : width - 1 + right] for right, down in BEFORE)
    x = np.stack([(other - first).ravel() for other in others], 1)
    return parted(x, (here - first).ravel())
