"""Parting rows in two by a seed: validation from training, and test from a set that comes in one piece."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sizer.errors import DataError

Rows = NDArray[np.int64]


def split(rows: int, share: float, seed: int, labels: Rows | None, name: str) -> tuple[Rows, Rows]:
    """Part rows into a larger and a smaller set; the same arguments give the same sets.

    With labels each class gives its share, as near as whole rows allow, and keeps at least one row in the first set.

    Args:
        rows: How many there are.
        share: What part of them goes to the second set, in (0, 1).
        seed: Of the draw; 0 or more.
        labels: Classes (rows,), to be parted alike; None in regression.
        name: What the message calls the data set.

    Returns:
        The row numbers of both sets, each in rising order.

    Raises:
        DataError: There are too few rows to leave one in both sets.
    """
    classes = np.zeros(rows, np.int64) if labels is None else labels
    rng = np.random.default_rng(seed)
    counts = np.bincount(classes)
    taken = _shares(counts, share)
    if taken.sum() == 0:
        raise DataError(f"{name}: {rows} rows are too few to hold some out; give at least two of a class")
    # A random order, then a stable sort by class: each class's rows in random order, one class after the other.
    order = rng.permutation(rows)
    order = order[np.argsort(classes[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    second = np.concatenate([order[start : start + n] for start, n in zip(starts, taken, strict=True)])
    held = np.zeros(rows, bool)
    held[second] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _shares(counts: Rows, share: float) -> Rows:
    """Rows to take of each class, (classes,): rounded by largest remainder, all but one of a class at most."""
    exact = np.where(counts > 1, counts * share, 0.0)
    taken = np.floor(exact).astype(np.int64)
    wanted = max(1, round(float(counts.sum()) * share))
    for label in np.argsort(taken - exact, kind="stable"):
        if taken.sum() < wanted:
            taken[label] += 1
    spare: Rows = np.maximum(counts - 1, 0)
    return np.minimum(taken, spare)
