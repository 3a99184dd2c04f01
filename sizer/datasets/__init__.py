"""Data sets, one source a file, found by its name. For studies and for users: `load` gives tensors ready to train on.

A file of this package that has ``read(folder) -> Raw`` is a data set of its own name. One that has ``PICTURE`` is made
of any picture, ``read(folder, file)``, and is named with it as ``brightness@photo.png``.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sizer import usercode
from sizer.datasets.cache import data_folder
from sizer.datasets.folds import check as check_cut
from sizer.datasets.folds import cut
from sizer.datasets.npz import read_npz
from sizer.datasets.raw import KEYS, Raw, check
from sizer.datasets.split import split
from sizer.datasets.standardise import measure
from sizer.errors import DataError, unknown

__all__ = ["Data", "Whole", "file_of", "load", "names", "part", "read", "with_file"]

MADE_OF = "@"
"""Stands between a data set and the picture that it is made of."""
PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three parts, standardised with what the training part alone says.

    Attributes:
        name: The data set's name, or that of the user's file without its ending.
        task: "classification" or "regression".
        x_train: float32 (N, *input_shape), contiguous, as all six are.
        y_train: int64 (N,) with classes 0..outputs-1, or float32 (N, outputs) standardised.
        x_val: As `x_train`: held out of the training set, for every choice.
        y_val: As `y_train`.
        x_test: As `x_train`: never looked at for a choice.
        y_test: As `y_train`.
        input_shape: One input's shape: (F,) or (C, H, W).
        outputs: Classes, or regression targets.
        preprocessing: How raw values became these, for JSON: under "x", and in regression under "y", ``kind``,
            ``divisor``, ``mean`` and ``std`` of ``(raw / divisor - mean) / std``.
    """

    name: str
    task: str
    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    input_shape: tuple[int, ...]
    outputs: int
    preprocessing: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Whole:
    """A data set as it was read, before it is cut and parted.

    Attributes:
        name: Its name.
        called: What messages call it: its name or its file.
        raw: Its arrays, or what a user's function gave ready-made.
    """

    name: str
    called: str
    raw: Raw | Data


def names() -> tuple[str, ...]:
    """List the data sets there are, in the order of the alphabet."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(name for name in found if hasattr(importlib.import_module(f"{__name__}.{name}"), "read"))


def load(
    source: str | Path,
    *,
    validation: float = 0.2,
    seed: int = 0,
    folder: Path | None = None,
    folds: int | None = None,
    fold: int = 0,
    samples: int | None = None,
) -> Data:
    """Read a data set, hold validation rows out of its training set, and standardise it.

    Args:
        source: A name of `names`, one that is made of a picture with its file, as `brightness@photo.png`, or the path
            of a user's .npz file with x_train, y_train, x_test and y_test. Integer y are classes, float y regression
            targets; x is a table (N, F) or images (N, H, W) or (N, H, W, C). Or `package.module:function`, called
            without arguments: it gives these four by name or in this order, or `Data`, which is taken as it is.
        validation: What part of the training set is held out, in (0, 1); of each class alike.
        seed: Which rows are held out, drawn as samples and dealt into each fold; 0 or more.
        folder: Where downloads are kept; else SIZER_DATA, else the platform's cache folder.
        folds: For cross-validation: training and test rows are merged and dealt into this many parts, of each class
            alike; every row is tested in one of them. None keeps the data set's own test part.
        fold: The part that is the test part, 0 to `folds` - 1; `validation` is held out of the others.
        samples: At most this many training rows, before `validation` is held out, and of the test rows the same share;
            with folds, at most this many of both together. Drawn of each class alike; every class keeps a row.

    Returns:
        The data. The same arguments give the same tensors.

    Raises:
        UnknownNameError: There is no such data set.
        DataError: The data cannot be had or cannot be trained on.
    """
    _check(validation, seed, folds, fold, samples)
    return part(read(source, folder), validation=validation, seed=seed, folds=folds, fold=fold, samples=samples)


def read(source: str | Path, folder: Path | None = None) -> Whole:
    """Read a data set, and do nothing to it yet.

    Args:
        source: As `load` takes it.
        folder: Where downloads are kept; else SIZER_DATA, else the platform's cache folder.

    Raises:
        UnknownNameError: There is no such data set.
        DataError: The data cannot be had.
    """
    name = str(source)
    if usercode.is_named(name):
        given = usercode.find(name)()
        return Whole(name, name, given if isinstance(given, Data) else _arrays(given, name))
    path = Path(source)
    if path.suffix == ".npz":
        return Whole(path.stem, str(path), read_npz(path.expanduser()))
    known, _, picture = name.partition(MADE_OF)
    if picture and known in names():
        return Whole(f"{known}-{Path(picture).stem}", name, _made_of(known, Path(picture).expanduser()))
    if name not in names():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"{name} is neither a .npz file nor a data set; the data sets are: {', '.join(names())}")
        raise unknown("data set", name, names())
    raw: Raw = importlib.import_module(f"{__name__}.{name}").read(data_folder(folder))
    return Whole(name, name, raw)


def file_of(source: str) -> Path | None:
    """The user's file that a data set's name holds: an .npz file or a picture; None where it is no file of theirs."""
    known, _, picture = source.partition(MADE_OF)
    if picture and known in names():
        return Path(picture)
    return Path(source) if source.endswith(".npz") else None


def with_file(source: str, file: Path | str) -> str:
    """The same data set of another file: of one that has a file."""
    known, at, _ = source.partition(MADE_OF)
    return f"{known}{at}{file}" if file_of(source) != Path(source) else str(file)


def _made_of(name: str, picture: Path) -> Raw:
    module = importlib.import_module(f"{__name__}.{name}")
    if not hasattr(module, "PICTURE"):
        raise DataError(f"{name} is made of no picture: leave out {MADE_OF}{picture}")
    raw: Raw = module.read(data_folder(None), picture)
    return raw


def part(
    whole: Whole,
    *,
    validation: float = 0.2,
    seed: int = 0,
    folds: int | None = None,
    fold: int = 0,
    samples: int | None = None,
) -> Data:
    """Cut, part and standardise a data set that was read: what `load` does, with the same arguments.

    Raises:
        DataError: The data cannot be trained on.
    """
    _check(validation, seed, folds, fold, samples)
    called, raw = whole.called, whole.raw
    if isinstance(raw, Data):
        if folds is not None or samples is not None:
            asked = f"folds={folds}" if folds is not None else f"samples={samples}"
            raise DataError(f"{called} gives Data, which is parted already; for {asked} let it give {', '.join(KEYS)}")
        return _checked(raw, called)
    task = check(raw, called)
    raw = cut(raw, task == "classification", folds, fold, samples, seed, called)
    return _prepared(whole.name, called, task, raw, validation, seed)


def _prepared(name: str, called: str, task: str, raw: Raw, validation: float, seed: int) -> Data:
    classes = raw.y_train.astype(np.int64) if task == "classification" else None
    train, val = split(len(raw.x_train), validation, seed, classes, called)
    x = measure(raw.x_train, train, f"{called}: x_train")
    x_train = x.apply(raw.x_train, train)
    preprocessing = {"x": x.to_dict()}
    if task == "classification":
        y_train, y_val, y_test = (torch.from_numpy(y.astype(np.int64)) for y in _parts(raw, train, val))
        outputs = int(raw.y_train.max()) + 1
    else:
        y = measure(_columns(raw.y_train), train, f"{called}: y_train")
        y_train, y_val, y_test = (y.apply(_columns(part)) for part in _parts(raw, train, val))
        outputs = y_train.shape[1]
        preprocessing["y"] = y.to_dict()
    return Data(
        name=name,
        task=task,
        x_train=x_train,
        y_train=y_train,
        x_val=x.apply(raw.x_train, val),
        y_val=y_val,
        x_test=x.apply(raw.x_test),
        y_test=y_test,
        input_shape=tuple(x_train.shape[1:]),
        outputs=outputs,
        preprocessing=preprocessing,
    )


def _check(validation: float, seed: int, folds: int | None, fold: int, samples: int | None) -> None:
    if not (math.isfinite(validation) and 0 < validation < 1):
        raise DataError(f"validation must lie between 0 and 1, both excluded, got {validation}")
    if seed < 0:
        raise DataError(f"seed must be 0 or more, got {seed}")
    check_cut(folds, fold, samples)


def _arrays(given: Any, called: str) -> Raw:
    """What a user's function gave, as arrays."""
    wanted = f"{called} must give sizer.datasets.Data, or arrays {', '.join(KEYS)} as a dict or tuple"
    if isinstance(given, tuple | list) and len(given) == len(KEYS):
        given = dict(zip(KEYS, given, strict=True))
    if not isinstance(given, Mapping):
        size = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise DataError(f"{wanted}; got a {type(given).__name__}{size}")
    if missing := [key for key in KEYS if key not in given]:
        raise DataError(f"{wanted}; got a dict without {', '.join(missing)}")
    try:
        return Raw(*(np.asarray(given[key]) for key in KEYS))
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unequal length, tensors of a GPU
        raise DataError(f"{wanted}; they are none ({str(error).splitlines()[0]})") from None


def _checked(data: Data, called: str) -> Data:
    """A user's own `Data`, if its fields fit each other."""
    if data.task not in ("classification", "regression"):
        raise DataError(f"{called}: task must be classification or regression, got {data.task!r}")
    for part in PARTS:
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        for key, value in (("x", x), ("y", y)):
            if not isinstance(value, Tensor) or not len(value):
                raise DataError(f"{called}: {key}_{part} must be a tensor of 1 row or more, got {type(value).__name__}")
        if len(x) != len(y) or tuple(x.shape[1:]) != tuple(data.input_shape) or x.dtype != torch.float32:
            raise DataError(
                f"{called}: x_{part} must be float32 ({len(y)}, {', '.join(map(str, data.input_shape))}), as y_{part}"
                f" and input_shape say, got {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            )
        classes = data.task == "classification"
        if (y.dtype != torch.int64 or y.min() < 0 or y.max() >= data.outputs) if classes else y.dtype != torch.float32:
            right = f"int64 classes 0 to {data.outputs - 1}" if classes else f"float32 (N, {data.outputs})"
            raise DataError(f"{called}: y_{part} must be {right}, got {str(y.dtype).removeprefix('torch.')}")
    try:
        json.dumps(data.preprocessing)
    except (TypeError, ValueError) as error:
        raise DataError(f"{called}: preprocessing must be plain values for JSON ({error})") from None
    return data


def _parts(raw: Raw, train: np.ndarray[Any, Any], val: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    return raw.y_train[train], raw.y_train[val], raw.y_test


def _columns(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return y.reshape(len(y), -1)
