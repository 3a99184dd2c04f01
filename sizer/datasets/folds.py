"""Fewer rows, and folds for cross-validation, of arrays as a source gives them."""

from __future__ import annotations

import numpy as np

from sizer.datasets.raw import Array, Raw
from sizer.datasets.split import Rows
from sizer.errors import DataError

_SHORTENING, _FOLDING = 1, 2  # streams of the seed beside the one that parts training from validation


def check(folds: int | None, fold: int, samples: int | None) -> None:
    """Refuse numbers that no data set can be cut by.

    Raises:
        DataError: The message says which and what would be right.
    """
    if samples is not None and samples < 1:
        raise DataError(f"samples must be 1 or more, got {samples}")
    if folds is None:
        if fold != 0:
            raise DataError(f"fold is {fold} but there are no folds; give folds too, 2 or more")
    elif folds < 2:
        raise DataError(f"folds must be 2 or more, got {folds}")
    elif not 0 <= fold < folds:
        raise DataError(f"fold must be 0 to {folds - 1} of {folds} folds, got {fold}")


def cut(raw: Raw, classes: bool, folds: int | None, fold: int, samples: int | None, seed: int, name: str) -> Raw:
    """Shorten a data set, then make one of its folds the test part.

    Args:
        raw: The arrays, checked.
        classes: Whether y are classes, each of which is then cut and folded alike.
        folds: Parts that training and test rows together are dealt into; None leaves both as they are.
        fold: The part that is tested.
        samples: Training rows to keep, of both together where there are folds; None keeps all.
        seed: Of both draws; 0 or more.
        name: What messages call the data set.

    Returns:
        The arrays of the rows chosen, each row's order kept; `raw` itself where there is nothing to cut.

    Raises:
        DataError: Too few rows are left for every class or fold.
    """
    trained, rows = len(raw.y_train), len(raw.y_train) + len(raw.y_test)
    whole = trained if folds is None else rows
    if folds is None and (samples is None or samples >= whole):
        return raw
    train, test = np.arange(trained), np.arange(trained, rows)
    labels = np.zeros(rows, np.int64)
    if classes:
        labels = np.concatenate([raw.y_train, raw.y_test]).astype(np.int64)
    if folds is None:
        assert samples is not None
        tested = max(1, round(len(test) * samples / trained))
        train = _fewer(train, labels, samples, 1, seed, name)
        test = _fewer(test, labels, tested, 0, seed, name)
    else:
        kept = np.concatenate([train, test])
        if samples is not None and samples < rows:
            kept = _fewer(kept, labels, samples, 2 if classes else 1, seed, name)
        dealt = _dealt(labels[kept], folds, seed, classes, name)
        train, test = kept[dealt != fold], kept[dealt == fold]
    return Raw(
        _rows(raw.x_train, raw.x_test, train),
        _rows(raw.y_train, raw.y_test, train),
        _rows(raw.x_train, raw.x_test, test),
        _rows(raw.y_train, raw.y_test, test),
    )


def _fewer(rows: Rows, labels: Rows, wanted: int, least: int, seed: int, name: str) -> Rows:
    """Draw `wanted` of the rows, in rising order: of each class its share, and `least` or all of it."""
    counts = np.bincount(labels[rows])
    floor = np.minimum(counts, least)
    if floor.sum() > wanted:
        each = f"{least} rows" if least > 1 else "a row"
        raise DataError(
            f"{name}: samples={wanted} cannot hold {each} of each of {len(counts)} classes; give {floor.sum()} or more"
        )
    taken = shares(counts, wanted, floor)
    order = np.random.default_rng([seed, _SHORTENING]).permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the row's class
    drawn: Rows = np.sort(order[rank < np.repeat(taken, counts)])
    return drawn


def shares(counts: Rows, wanted: int, floor: Rows) -> Rows:
    """Part `wanted` rows over classes in proportion, by largest remainder.

    Args:
        counts: Rows of each class, (classes,).
        wanted: Rows in all, at most as many as there are.
        floor: Rows that each class gets at least, (classes,); at most `wanted` in all.

    Returns:
        Rows of each class, (classes,): within one of its share, unless others' `floor` takes more from it.
    """
    exact = counts * (wanted / counts.sum())
    taken: Rows = np.maximum(np.floor(exact).astype(np.int64), floor)
    while taken.sum() < wanted:
        taken[np.where(taken < counts, exact - taken, -np.inf).argmax()] += 1
    while taken.sum() > wanted:
        taken[np.where(taken > floor, taken - exact, -np.inf).argmax()] -= 1
    return taken


def _dealt(labels: Rows, folds: int, seed: int, classes: bool, name: str) -> Rows:
    """The fold of each row: shuffled rows dealt in turn, one class after the other, so that each differs by one."""
    if folds > len(labels):
        raise DataError(f"{name}: folds={folds} is more than its {len(labels)} rows; give {len(labels)} or fewer")
    counts = np.bincount(labels)
    if classes and counts.min() < 2:
        raise DataError(
            f"{name}: class {counts.argmin()} has a single row, which its fold would take from training; give two or "
            "more of each class"
        )
    order = np.random.default_rng([seed, _FOLDING]).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    dealt = np.empty(len(labels), np.int64)
    dealt[order] = np.arange(len(labels)) % folds
    return dealt


def _rows(train: Array, test: Array, rows: Rows) -> Array:
    """Rows of both arrays, numbered as if one followed the other, in rising order; copied once."""
    at = int(np.searchsorted(rows, len(train)))
    out = np.empty((len(rows), *train.shape[1:]), np.result_type(train, test))
    out[:at] = train[rows[:at]]
    out[at:] = test[rows[at:] - len(train)]
    return out
