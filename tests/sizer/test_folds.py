"""Folds and shortened sets: what is a partition, what is cut alike, and that impossible numbers are one line."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sizer import datasets
from sizer.datasets import folds
from sizer.datasets.raw import Raw
from sizer.errors import DataError
from tests.sizer import users_code

CLASSES = st.lists(st.integers(2, 30), min_size=2, max_size=6)
SEEDS = st.integers(0, 5)


def numbered(counts: list[int]) -> Raw:
    """Rows whose only value is their number, of so many a class, in mixed order; the last fifth is the test part."""
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    # Each class once at the front, so that the training part has all.
    y = np.concatenate([np.arange(len(counts)), y])
    x = np.arange(len(y)).reshape(-1, 1)
    at = max(len(counts), len(y) * 4 // 5)
    return Raw(x[:at], y[:at], x[at:], y[at:]) if at < len(y) else numbered([*counts[:-1], counts[-1] + 5])


def rows(array):
    return array[:, 0].tolist()


@settings(max_examples=60, deadline=None)
@given(CLASSES, st.integers(2, 9), SEEDS, st.booleans())
def test_folds_are_a_partition_that_deals_each_class_alike(counts, parts, seed, classes):
    raw = numbered(counts)
    x, y = np.concatenate([raw.x_train, raw.x_test]), np.concatenate([raw.y_train, raw.y_test])
    parts = min(parts, len(x))
    made = [folds.cut(raw, classes, parts, fold, None, seed, "mine") for fold in range(parts)]
    assert sorted(row for fold in made for row in rows(fold.x_test)) == rows(x)
    for fold in made:
        assert sorted(rows(fold.x_train) + rows(fold.x_test)) == rows(x)
        assert (fold.y_train == y[fold.x_train[:, 0]]).all()
        assert (fold.y_test == y[fold.x_test[:, 0]]).all()
    sizes = [len(fold.x_test) for fold in made]
    assert max(sizes) - min(sizes) <= 1
    if classes:
        each = np.stack([np.bincount(fold.y_test, minlength=len(counts)) for fold in made])
        assert np.ptp(each, axis=0).max() <= 1
        assert all(set(fold.y_train) == set(y) for fold in made)


@settings(max_examples=60, deadline=None)
@given(CLASSES, st.integers(0, 200), SEEDS)
def test_a_shortened_set_has_so_many_rows_and_its_share_of_each_class(counts, wanted, seed):
    raw = numbered(counts)
    wanted = min(len(counts) + wanted, len(raw.x_train))
    short = folds.cut(raw, True, None, 0, wanted, seed, "mine")
    assert len(short.x_train) == wanted
    assert len(short.x_test) == max(1, round(len(raw.x_test) * wanted / len(raw.x_train)))
    for part in ("train", "test"):
        x, y = getattr(raw, f"x_{part}"), getattr(raw, f"y_{part}")
        kept, labels = getattr(short, f"x_{part}"), getattr(short, f"y_{part}")
        assert (np.diff(kept[:, 0]) > 0).all()
        assert (labels == y[kept[:, 0] - x[0, 0]]).all()
        exact = np.bincount(y, minlength=len(counts)) * len(kept) / len(x)
        if part == "test" or exact.min() >= 1:
            assert np.abs(np.bincount(labels, minlength=len(counts)) - exact).max() < 1
    assert set(short.y_train) == set(raw.y_train)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), st.data())
def test_shares_add_up_and_keep_every_floor(counts, data):
    counts = np.array(counts)
    floor = np.minimum(counts, data.draw(st.integers(0, 2)))
    wanted = data.draw(st.integers(max(1, int(floor.sum())), int(counts.sum())))
    taken = folds.shares(counts, wanted, floor)
    assert taken.sum() == wanted
    assert (taken >= floor).all()
    assert (taken <= counts).all()


def test_the_seed_decides_the_rows():
    raw = numbered([30, 30])
    for options in ({"folds": 3, "samples": None}, {"folds": None, "samples": 20}, {"folds": 3, "samples": 20}):
        first, again, other = (
            folds.cut(raw, True, options["folds"], 0, options["samples"], seed, "mine") for seed in (0, 0, 1)
        )
        assert rows(first.x_test) == rows(again.x_test)
        assert rows(first.x_train) == rows(again.x_train)
        assert rows(first.x_train) != rows(other.x_train)


def test_folds_of_a_shortened_set_part_the_same_rows():
    raw = numbered([30, 20, 4])
    made = [folds.cut(raw, True, 4, fold, 25, 0, "mine") for fold in range(4)]
    tested = [row for fold in made for row in rows(fold.x_test)]
    assert len(set(tested)) == len(tested) == 25
    assert all(set(rows(fold.x_train)) | set(rows(fold.x_test)) == set(tested) for fold in made)
    assert max(tested) >= len(raw.x_train)


def test_nothing_to_cut_copies_nothing():
    raw = numbered([20, 20])
    assert folds.cut(raw, True, None, 0, None, 0, "mine") is raw
    assert folds.cut(raw, True, None, 0, len(raw.x_train), 0, "mine") is raw


def test_loading_a_fold_holds_validation_out_of_the_others():
    data = [datasets.load("digits", folds=4, fold=fold, validation=0.25) for fold in range(4)]
    assert sum(len(fold.x_test) for fold in data) == 1797
    for fold in data:
        assert len(fold.x_val) == pytest.approx(0.25 * (1797 - len(fold.x_test)), abs=1)
    again = datasets.load("digits", folds=4, fold=2, validation=0.25)
    assert torch.equal(again.x_test, data[2].x_test)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1}, "folds must be 2 or more, got 1"),
        ({"folds": 3, "fold": 3}, "fold must be 0 to 2 of 3 folds, got 3"),
        ({"folds": 3, "fold": -1}, "fold must be 0 to 2 of 3 folds, got -1"),
        ({"fold": 1}, "fold is 1 but there are no folds; give folds too, 2 or more"),
        ({"folds": 1798}, "digits: folds=1798 is more than its 1797 rows; give 1797 or fewer"),
        ({"folds": 31, "samples": 30}, "digits: folds=31 is more than its 30 rows; give 30 or fewer"),
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"samples": 9}, "digits: samples=9 cannot hold a row of each of 10 classes; give 10 or more"),
        ({"samples": 19, "folds": 2}, "digits: samples=19 cannot hold 2 rows of each of 10 classes; give 20 or more"),
    ],
)
def test_numbers_that_no_set_can_be_cut_by_are_refused(options, said):
    with pytest.raises(DataError) as caught:
        datasets.load("digits", **options)
    assert str(caught.value) == said


def test_a_class_of_one_row_cannot_be_folded():
    raw = Raw(np.zeros((5, 1)), np.array([0, 0, 1, 1, 2]), np.zeros((2, 1)), np.array([0, 1]))
    with pytest.raises(DataError, match=r"mine: class 2 has a single row, .* give two or more of each class"):
        folds.cut(raw, True, 2, 0, None, 0, "mine")


@pytest.mark.parametrize("options", [{"folds": 3}, {"samples": 100}])
def test_data_that_is_parted_already_is_neither_folded_nor_cut(tmp_path, monkeypatch, options):
    users_code.write(
        users_code.enter(tmp_path, monkeypatch),
        mine="import sizer\ndef data():\n  return sizer.datasets.load('digits')\n",
    )
    (asked,) = (f"{key}={value}" for key, value in options.items())
    with pytest.raises(DataError, match=f"mine:data gives Data, .*{asked} let it give x_train, y_train"):
        datasets.load("mine:data", **options)
