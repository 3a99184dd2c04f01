"""The arrays of a data set as they are read, before anything is done to them, and what makes them fit to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizer.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")

Array = NDArray[Any]


@dataclass(frozen=True)
class Raw:
    """Four arrays as a source gives them.

    Attributes:
        x_train: Inputs: a table (N, F), grey images (N, H, W) or colour images (N, H, W, C), of numbers.
        y_train: Targets: integers (N,) are classes 0..C-1, floats (N,) or (N, K) are regression targets.
        x_test: As `x_train`, with its own N.
        y_test: As `y_train`, with its own N.
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def check(raw: Raw, name: str) -> str:
    """Refuse arrays that cannot be trained on.

    Args:
        raw: The arrays.
        name: What the message calls them: the data set's name or its file.

    Returns:
        "classification" where the targets are integers, "regression" where they are floats.

    Raises:
        DataError: Shapes, lengths, types or values that do not fit; the message says which and what to do.
    """
    for key in KEYS:
        _check_values(getattr(raw, key), f"{name}: {key}")
    for part in ("train", "test"):
        x, y = getattr(raw, f"x_{part}"), getattr(raw, f"y_{part}")
        if x.ndim not in (2, 3, 4):
            raise DataError(
                f"{name}: x_{part} must be a table (N, F) or images (N, H, W) or (N, H, W, C), got shape {x.shape}"
            )
        if y.ndim == 0:
            raise DataError(f"{name}: y_{part} is the single number {y}; give one target a row of x_{part}")
        if len(x) != len(y):
            raise DataError(f"{name}: x_{part} has {len(x)} rows but y_{part} has {len(y)}; give one target a row")
    for key in ("x", "y"):
        train, test = getattr(raw, f"{key}_train"), getattr(raw, f"{key}_test")
        if train.shape[1:] != test.shape[1:]:
            raise DataError(f"{name}: a row of {key}_train has shape {train.shape[1:]}, of {key}_test {test.shape[1:]}")
        if key == "y" and (train.dtype.kind == "f") != (test.dtype.kind == "f"):
            raise DataError(
                f"{name}: y_train is {train.dtype} and y_test {test.dtype}; give both as integers (classes) or floats"
            )
    if raw.y_train.dtype.kind == "f":
        _check_targets(raw, name)
        return "regression"
    _check_labels(raw, name)
    return "classification"


def _check_values(array: Array, name: str) -> None:
    if array.dtype.kind not in "buif":
        raise DataError(f"{name} must be an array of integers or floats, got {array.dtype}")
    if array.size == 0:
        raise DataError(f"{name} is empty (shape {array.shape}); give at least one row and one value a row")
    if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name} holds {array[where]} at {where}; remove or fill in such rows")


def _check_targets(raw: Raw, name: str) -> None:
    if raw.y_train.ndim > 2:
        raise DataError(f"{name}: y_train must be (N,) or (N, K) in regression, got shape {raw.y_train.shape}")
    if (raw.y_train == raw.y_train[0]).all():
        raise DataError(f"{name}: every target in y_train is {raw.y_train[0]}; there is nothing to learn")


def _check_labels(raw: Raw, name: str) -> None:
    train, test = raw.y_train, raw.y_test
    if train.ndim != 1:
        raise DataError(
            f"{name}: integer y_train must be (N,), one class a row, got shape {train.shape}; "
            "turn one-hot rows into classes with y.argmax(1), give regression targets as floats"
        )
    classes = np.unique(train)
    renumber = "number the classes 0, 1, 2, ... with numpy.unique(y, return_inverse=True)"
    if classes[0] < 0:
        raise DataError(f"{name}: y_train holds the negative label {classes[0]}; {renumber}")
    if len(classes) == 1:
        raise DataError(f"{name}: y_train holds a single class, {classes[0]}; there is nothing to learn")
    if classes[-1] != len(classes) - 1:
        missing = int(np.flatnonzero(classes != np.arange(len(classes)))[0])
        raise DataError(
            f"{name}: labels run up to {classes[-1]} but class {missing} has no row in y_train; "
            f"{renumber}, or give regression targets as floats"
        )
    unseen = test[(test < 0) | (test >= len(classes))]
    if len(unseen):
        raise DataError(
            f"{name}: y_test holds the label {unseen[0]}, y_train only 0 to {len(classes) - 1}; "
            "test on classes that are trained"
        )
