"""Parsers of the colour image sets, on files of the same format: they give back what was written."""

import re
import sys
import zipfile

import numpy as np
import pytest

from sizer.datasets import cifar100, svhn, tiny_imagenet
from sizer.datasets.raw import KEYS
from sizer.errors import DataError
from tests.sizer.originals import jpeg, small, wnid, write_cifar100, write_svhn, write_tiny_imagenet


@pytest.mark.parametrize(("parse", "write"), [(cifar100.parse, write_cifar100), (svhn.parse, write_svhn)])
def test_lossless_files_give_back_their_images_and_labels(tmp_path, parse, write):
    raw = small(32, 32, 3)
    parsed = parse(write(tmp_path, raw))
    for key in KEYS:
        np.testing.assert_array_equal(getattr(parsed, key), getattr(raw, key))
    assert parsed.x_train.flags.c_contiguous


def test_jpegs_give_back_their_images_near_enough_and_their_labels(tmp_path):
    raw = small(64, 64, 3)
    smooth = np.linspace(0, 255, 64).astype(np.uint8)
    raw.x_train[:, :, :, 0], raw.x_train[:, :, :, 1] = smooth, smooth[:, None]
    raw.x_train[:, :, :, 2] = np.arange(40)[:, None, None] * 6
    raw.x_test[:] = np.arange(20)[:, None, None, None] * 12
    parsed = tiny_imagenet.parse(write_tiny_imagenet(tmp_path, raw))
    for key in ("x_train", "x_test"):
        assert np.abs(getattr(parsed, key).astype(int) - getattr(raw, key)).max() <= 4
    np.testing.assert_array_equal(parsed.y_train, raw.y_train)
    np.testing.assert_array_equal(parsed.y_test, raw.y_test)


def test_a_grey_jpeg_gets_three_equal_channels(tmp_path):
    path = changed(tmp_path, {"val/images/val_0.JPEG": jpeg(np.full((64, 64), 90, np.uint8))})
    assert (tiny_imagenet.parse([path]).x_test[0] == 90).all()


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("wnids.txt", None, "lacks tiny-imagenet-200/wnids.txt"),
        ("wnids.txt", b"n1\n", "lacks training images of class n1"),
        ("val/val_annotations.txt", None, "lacks tiny-imagenet-200/val/val_annotations.txt"),
        ("val/images/val_3.JPEG", None, "no image of 64 x 64 at tiny-imagenet-200/val/images/val_3.JPEG"),
        ("val/images/val_3.JPEG", b"text", "no image of 64 x 64 at tiny-imagenet-200/val/images/val_3.JPEG"),
        ("val/images/val_3.JPEG", jpeg(np.zeros((64, 1, 3), np.uint8)), r"val_3.JPEG \(its size is \(1, 64\)\)"),
        (f"train/{wnid(4)}/images/{wnid(4)}_4.JPEG", jpeg(np.zeros((8, 8, 3), np.uint8)), "no image"),
    ],
)
def test_a_tiny_imagenet_zip_that_lacks_a_part_is_refused(tmp_path, file, data, said):
    refused(tiny_imagenet.parse, [changed(tmp_path, {file: data})], said)


def test_matlab_files_of_other_arrays_are_refused(tmp_path):
    from scipy.io import savemat

    train, test = write_svhn(tmp_path, small(32, 32, 3))
    savemat(test, {"X": np.zeros((32, 32, 3, 5), np.uint8), "y": np.ones((4, 1), np.uint8)})
    refused(svhn.parse, [train, test], r"test_32x32.mat: X must be uint8 \(32, 32, 3, 4\).* got uint8 \(32, 32, 3, 5\)")
    savemat(test, {"x": np.zeros(3)})
    refused(svhn.parse, [train, test], "test_32x32.mat is not a MATLAB file of X and y")
    for length in (0, 60, 200, 2000):
        train.write_bytes(train.read_bytes()[:length] if length else b"")
        refused(svhn.parse, [train, test], "train_32x32.mat is not a MATLAB file of X and y")


@pytest.mark.parametrize(
    ("module", "parse", "write", "side"),
    [("scipy.io", svhn.parse, write_svhn, 32), ("PIL", tiny_imagenet.parse, write_tiny_imagenet, 64)],
)
def test_a_missing_package_is_named_with_how_to_install_it(tmp_path, monkeypatch, module, parse, write, side):
    files = write(tmp_path, small(side, side, 3))
    monkeypatch.setitem(sys.modules, module, None)
    refused(parse, files, "pip install (scipy|pillow)")


def changed(folder, files):
    """The zip with other files in it, or without those that are None."""
    path, *_ = write_tiny_imagenet(folder, small(64, 64, 3))
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held |= {f"{tiny_imagenet.ROOT}/{name}": data for name, data in files.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def refused(parse, files, said):
    with pytest.raises(DataError) as caught:
        parse(files)
    assert re.search(said, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
