"""Data sets: what loading gives, and that bad data is one clear line."""

import errno
import importlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sizer import datasets
from sizer.datasets import cifar10, idx
from sizer.datasets.cache import cached, data_folder
from sizer.datasets.npz import read_npz, write_npz
from sizer.datasets.raw import KEYS, Raw
from sizer.datasets.split import split
from sizer.datasets.standardise import measure
from sizer.errors import DataError, InputError, UnknownNameError
from tests.sizer.originals import (
    hashes,
    home,
    idx_bytes,
    images,
    little,
    small,
    write_cifar,
    write_cifar100,
    write_idx,
    write_svhn,
    write_tiny_imagenet,
)


def table(**changes: Any) -> dict[str, Any]:
    """A good table of 40 and 10 rows, 3 columns and 2 classes, with some arrays changed."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(5.0, 2.0, (40, 3)),
        "y_train": np.arange(40) % 2,
        "x_test": rng.normal(5.0, 2.0, (10, 3)),
        "y_test": np.arange(10) % 2,
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def save(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **table(**changes))
    return path


def refusal(path: Path | str, **options: Any) -> str:
    """The message with which data is refused: one line, an input error."""
    with pytest.raises(InputError) as caught:
        datasets.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What loading gives


def test_digits_are_parted_the_same_way_in_every_load():
    first, second = datasets.load("digits"), datasets.load("digits", seed=1)
    assert (len(first.x_train), len(first.x_val), len(first.x_test)) == (1150, 288, 359)
    assert first.input_shape == (1, 8, 8)
    assert torch.equal(first.y_test, second.y_test)
    assert not torch.equal(first.y_val, second.y_val)


def test_images_become_channels_first_and_standardised_a_channel_on_the_training_part(tmp_path):
    x = np.random.default_rng(1).integers(0, 256, (50, 4, 5, 3)).astype(np.uint8)
    x[..., 1] //= 4
    data = datasets.load(save(tmp_path, x_train=x, y_train=np.arange(50) % 2, x_test=x[:10]))
    assert data.input_shape == (3, 4, 5)
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.x_train.std((0, 2, 3), correction=0), torch.ones(3))
    assert data.x_val.mean((0, 2, 3)).abs().min() > 1e-4
    back = data.preprocessing["x"]
    mean, std = (torch.tensor(back[key]).view(3, 1, 1) for key in ("mean", "std"))
    raw = (data.x_test * std + mean) * back["divisor"]
    torch.testing.assert_close(raw, torch.from_numpy(x[:10]).permute(0, 3, 1, 2).float(), atol=1e-3, rtol=0)


def test_grey_images_get_one_channel_and_one_scale(tmp_path):
    x = images(50, 4, 5)
    data = datasets.load(save(tmp_path, x_train=x, y_train=np.arange(50) % 2, x_test=x[:10]))
    assert data.input_shape == (1, 4, 5)
    assert len(data.preprocessing["x"]["mean"]) == 1
    assert data.x_test[3, 0, 2, 1] > data.x_test[3, 0, 2, 0]


def test_a_table_is_standardised_a_column_and_a_constant_column_only_centred(tmp_path):
    x = table()["x_train"]
    x[:, 1] = 0.1
    x[:, 2] = 1e9 + np.arange(40)
    data = datasets.load(save(tmp_path, x_train=x))
    assert data.input_shape == (3,)
    assert data.preprocessing["x"]["std"][1] == 1.0
    torch.testing.assert_close(data.x_train.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.x_train.std(0, correction=0), torch.tensor([1.0, 0.0, 1.0]))


def test_a_scale_does_not_depend_on_how_rows_fall_into_blocks(monkeypatch):
    x = np.random.default_rng(2).normal(3.0, 2.0, (97, 4, 6))
    rows = np.arange(0, 97, 2)
    monkeypatch.setattr("sizer.datasets.standardise._BLOCK", 100)
    scale = measure(x, rows, "x")
    np.testing.assert_allclose(scale.mean[0], x[rows].mean(), rtol=1e-12)
    np.testing.assert_allclose(scale.std[0], x[rows].std(), rtol=1e-12)
    expected = (x[rows] - x[rows].mean()) / x[rows].std()
    np.testing.assert_allclose(scale.apply(x, rows)[:, 0].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("columns", [1, 2])
def test_float_targets_are_regression_and_can_be_turned_back(tmp_path, columns):
    y = np.random.default_rng(3).normal(100.0, 20.0, (40, columns))
    path = save(tmp_path, y_train=y if columns > 1 else y[:, 0], y_test=y[:10] if columns > 1 else y[:10, 0])
    data = datasets.load(path)
    assert (data.task, data.outputs) == ("regression", columns)
    torch.testing.assert_close(data.y_train.mean(0), torch.zeros(columns), atol=1e-6, rtol=0)
    back = data.preprocessing["y"]
    raw = data.y_test.numpy() * np.array(back["std"]) + np.array(back["mean"])
    np.testing.assert_allclose(raw, y[:10], rtol=1e-5)


def test_validation_takes_its_share_of_every_class_by_the_seed():
    labels = np.repeat([0, 1, 2, 3], [50, 30, 19, 1])
    train, val = split(100, 0.2, 7, labels, "mine")
    assert np.bincount(labels[val], minlength=4).tolist() == [10, 6, 4, 0]
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(100))
    assert np.array_equal(val, split(100, 0.2, 7, labels, "mine")[1])
    assert not np.array_equal(val, split(100, 0.2, 8, labels, "mine")[1])


def test_every_class_keeps_a_row_to_train_on():
    labels = np.array([0, 0, 1, 1, 2])
    train, val = split(5, 0.99, 0, labels, "mine")
    assert set(labels[train]) == {0, 1, 2}
    assert len(val) == 2


def test_the_test_rows_do_not_move_the_scale(tmp_path):
    first = datasets.load(save(tmp_path)).preprocessing
    second = datasets.load(save(tmp_path, x_test=table()["x_test"] * 1000)).preprocessing
    assert first == second


# Downloads: parsed by us, kept as NAME.npz, read from there without network


def test_idx_files_give_back_their_images_and_labels(tmp_path):
    raw = small(28, 28)
    parsed = idx.parse(write_idx(tmp_path, raw))
    for key in KEYS:
        np.testing.assert_array_equal(getattr(parsed, key), getattr(raw, key))


@pytest.mark.parametrize("data", [b"", b"PK\3\4", idx_bytes(images(3, 2, 2))[:-1], idx_bytes(images(3, 2, 2)) + b"x"])
def test_idx_files_of_another_kind_or_length_are_refused(data):
    with pytest.raises(DataError, match="labels"):
        idx.decode(data, "labels")


def test_the_binary_cifar_tar_gives_back_its_images_and_labels(tmp_path):
    raw = small(32, 32, 3)
    parsed = cifar10.parse(write_cifar(tmp_path, raw))
    for key in KEYS:
        np.testing.assert_array_equal(getattr(parsed, key), getattr(raw, key))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (cifar10.TRAIN[2], None, "lacks cifar-10-batches-bin/data_batch_3.bin"),
        (cifar10.TEST[0], bytes(3073 + 1), "must be records of 3073 bytes, got 3074 bytes"),
        (cifar10.TEST[0], b"", "got 0 bytes"),
    ],
)
def test_a_cifar_tar_that_lacks_a_batch_or_ends_within_an_image_is_refused(tmp_path, name, data, said):
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for batch in (*cifar10.TRAIN, *cifar10.TEST):
            content = data if batch == name else bytes(3073)
            if content is not None:
                member = tarfile.TarInfo(batch)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=said):
        cifar10.parse([path])


WRITERS = {
    "mnist": write_idx,
    "fashion_mnist": write_idx,
    "cifar10": write_cifar,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "tiny_imagenet": write_tiny_imagenet,
}


def test_every_data_set_with_files_to_download_has_been_downloaded_here():
    modules = {name: importlib.import_module(f"sizer.datasets.{name}") for name in datasets.names()}
    assert set(WRITERS) == {name for name, module in modules.items() if hasattr(module, "FILES")}


@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_is_downloaded_once_and_then_needs_no_network(tmp_path, monkeypatch, name):
    raw, files = little(name), WRITERS[name]
    served, folder = tmp_path / "home", tmp_path / "new" / "data"
    served.mkdir()
    originals = files(served, raw)
    with home(served) as (address, _):
        monkeypatch.setattr(f"sizer.datasets.{name}.FILES", hashes(originals, address))
        first = datasets.load(name, folder=folder)
    assert [file.name for file in folder.iterdir()] == [f"{name}.npz"]
    second = datasets.load(name, folder=folder)
    assert torch.equal(first.x_train, second.x_train)
    assert second.y_test.tolist() == raw.y_test.tolist()


def test_a_download_with_another_hash_is_refused_and_leaves_nothing(tmp_path):
    served, folder = tmp_path / "home", tmp_path / "data"
    served.mkdir()
    originals = write_idx(served, small(28, 28))
    with home(served) as (address, _):
        known = dict.fromkeys(hashes(originals, address), "md5:" + "0" * 32)
        with pytest.raises(DataError, match=r"/train-images-idx3-ubyte.gz serves a file whose hash is not md5:0+; "):
            cached("mnist", folder, known, idx.parse)
    assert list(folder.iterdir()) == []


def test_a_home_that_lacks_the_file_or_does_not_answer_is_named_with_what_to_do(tmp_path):
    served, folder = tmp_path / "home", tmp_path / "data"
    served.mkdir()
    with home(served) as (address, _):
        known = {f"{address}/gone.gz": "md5:" + "0" * 32}
        with pytest.raises(DataError, match=r"gone.gz \(HTTP status 404\)"):
            cached("mnist", folder, known, idx.parse)
    with pytest.raises(DataError) as caught:
        cached("mnist", folder, known, idx.parse)
    message = str(caught.value)
    assert "(no connection)" in message
    assert "mnist.npz" in message
    assert str(folder) in message
    assert "\n" not in message


def test_the_data_folder_is_the_argument_then_the_environment_then_the_platforms_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIZER_DATA", str(tmp_path / "named"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder() == tmp_path / "named"
    monkeypatch.setenv("SIZER_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder().name == "sizer"
    assert tmp_path in data_folder().parents


def test_a_kept_file_that_is_corrupt_is_to_be_deleted(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"half a file")
    message = refusal("mnist", folder=tmp_path)
    assert str(tmp_path / "mnist.npz") in message
    assert "delete it" in message


def test_a_data_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    message = refusal("mnist", folder=tmp_path / "file" / "data")
    assert "cannot keep mnist in the data folder" in message
    assert "SIZER_DATA" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_data_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal("mnist", folder=tmp_path)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path):
    served, folder = tmp_path / "home", tmp_path / "data"
    served.mkdir()
    originals = write_idx(served, small(28, 28, train=400))
    with home(served) as (address, _):
        code = (
            "import resource, sys\n"
            "from pathlib import Path\n"
            "from sizer.datasets import idx\n"
            "from sizer.datasets.cache import cached\n"
            "from sizer.errors import DataError\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
            f"try: cached('mnist', Path({str(folder)!r}), {hashes(originals, address)!r}, idx.parse)\n"
            "except DataError as error: sys.exit(f'refused: {error}')\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert f"refused: cannot keep mnist in the data folder {folder}: {os.strerror(errno.EFBIG)}" in done.stderr
    assert list(folder.iterdir()) == []


# Bad data


def test_an_unknown_name_lists_the_nearest_first():
    with pytest.raises(UnknownNameError, match=r"unknown data set 'fashion'; there are: fashion_mnist, "):
        datasets.load("fashion")


def test_a_file_of_another_kind_is_refused(tmp_path):
    assert "neither a .npz file nor a data set" in refusal(tmp_path / "rows.csv")


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_validation_share_outside_0_and_1_is_refused(share):
    assert f"validation must lie between 0 and 1, both excluded, got {share}" in refusal("digits", validation=share)


def test_a_negative_seed_is_refused():
    assert refusal("digits", seed=-1) == "seed must be 0 or more, got -1"


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "mine.npz").startswith(f"no data file at {tmp_path / 'mine.npz'}")
    (tmp_path / "folder.npz").mkdir()
    assert "Is a directory" in refusal(tmp_path / "folder.npz")


def test_a_broken_file_is_refused_wherever_it_is_cut(tmp_path):
    path = save(tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        assert "is not a whole .npz file" in refusal(path)


def test_a_changed_byte_is_refused(tmp_path):
    path = save(tmp_path)
    whole = path.read_bytes()
    at = whole.index(table()["x_train"].tobytes()[:16])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "is damaged (Bad CRC-32" in refusal(path)


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as file:
        for key in KEYS:
            file.writestr(f"{key}.npy", b"text")
    assert "x_train is not an array" in refusal(path)


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, (str(tmp_path / "sprung"), "w"))

    path = save(tmp_path, x_train=np.array([Trap()], dtype=object))
    assert "x_train is an array of Python objects" in refusal(path)
    path.write_bytes(pickle.dumps(Trap()))
    assert "is not a whole .npz file" in refusal(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_arrays_are_named(tmp_path):
    message = refusal(save(tmp_path, x_test=None, y_test=None))
    assert "lacks x_test, y_test (it holds x_train, y_train)" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": np.zeros(40)}, r"x_train must be a table .* got shape \(40,\)"),
        ({"x_train": np.zeros((40, 2, 2, 2, 2))}, r"x_train must be a table"),
        ({"x_train": np.zeros((39, 3))}, "x_train has 39 rows but y_train has 40"),
        ({"x_test": np.zeros((9, 3))}, "x_test has 9 rows but y_test has 10"),
        ({"x_test": np.zeros((10, 4))}, r"a row of x_train has shape \(3,\), of x_test \(4,\)"),
        ({"x_train": np.zeros((0, 3)), "y_train": np.zeros(0, int)}, r"x_train is empty \(shape \(0, 3\)\)"),
        ({"x_test": np.zeros((0, 3)), "y_test": np.zeros(0, int)}, "x_test is empty"),
        ({"x_train": np.zeros((40, 0))}, "x_train is empty"),
        ({"x_train": np.full((40, 3), "a")}, "x_train must be an array of integers or floats, got <U1"),
        ({"y_train": np.array(["cat", "dog"] * 20)}, "y_train must be an array of integers or floats, got <U3"),
        ({"x_train": np.where(np.eye(40, 3) * np.arange(3) > 1, np.nan, 1.0)}, r"x_train holds nan at \(2, 2\)"),
        ({"x_test": np.where(np.eye(10, 3) * np.arange(3) > 1, np.inf, 1.0)}, r"x_test holds inf at \(2, 2\)"),
        ({"x_test": np.where(np.eye(10, 3) * np.arange(3) > 1, -np.inf, 1.0)}, r"x_test holds -inf at \(2, 2\)"),
        ({"y_train": np.full(40, np.nan), "y_test": np.zeros(10)}, r"y_train holds nan at \(0,\)"),
        ({"x_train": np.linspace(-1e300, 1e300, 120).reshape(40, 3)}, "values too large to standardise"),
        ({"y_train": np.array(3)}, "y_train is the single number 3"),
        ({"y_train": np.arange(40) % 2 - 1}, "y_train holds the negative label -1"),
        ({"y_train": np.zeros(40, int)}, "y_train holds a single class, 0"),
        ({"y_train": np.arange(40) % 2 + 1}, "labels run up to 2 but class 0 has no row"),
        ({"y_train": np.arange(40) % 2 * 2}, "labels run up to 2 but class 1 has no row"),
        ({"y_test": np.arange(10)}, "y_test holds the label 2, y_train only 0 to 1"),
        ({"y_test": np.arange(10) - 1}, "y_test holds the label -1"),
        ({"y_train": np.eye(40, 2, dtype=int), "y_test": np.eye(10, 2, dtype=int)}, r"y\.argmax\(1\)"),
        ({"y_train": np.arange(40) % 2 + 0.5}, "y_train is float64 and y_test int64"),
        ({"y_train": np.ones(40), "y_test": np.ones(10)}, "every target in y_train is 1.0"),
        ({"y_train": np.ones((40, 1, 1)), "y_test": np.ones((10, 1, 1))}, "in regression"),
        ({"x_train": np.zeros((2, 3)), "y_train": np.arange(2)}, "too few to hold some out"),
    ],
)
def test_arrays_that_cannot_be_trained_on_are_refused(tmp_path, changes, said):
    message = refusal(save(tmp_path, **changes))
    assert re.search(said, message)
    assert str(tmp_path / "mine.npz") in message


def test_writing_and_reading_a_file_gives_the_same_arrays(tmp_path):
    raw = Raw(**table())
    write_npz(tmp_path / "mine.npz", raw)
    for key in KEYS:
        np.testing.assert_array_equal(getattr(read_npz(tmp_path / "mine.npz"), key), getattr(raw, key))


def test_preprocessing_survives_json(tmp_path):
    preprocessing = datasets.load(save(tmp_path)).preprocessing
    assert json.loads(json.dumps(preprocessing)) == preprocessing
