"""Files of the four arrays x_train, y_train, x_test, y_test: a user's own data, and how downloads are kept."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from sizer.datasets.raw import KEYS, Array, Raw
from sizer.errors import DataError

WRITE_AGAIN = "write it again with numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)"

# What NumPy and zipfile raise of bytes that are no arrays, headers that promise more than any memory holds among them.
_BROKEN = (
    ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, EOFError, RuntimeError, OSError, MemoryError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path: Path, remedy: str = WRITE_AGAIN) -> Raw:
    """Read the four arrays. Nothing in the file is ever unpickled.

    Args:
        path: A file that `numpy.savez` or `numpy.savez_compressed` wrote.
        remedy: What the message tells the user to do about a broken file.

    Returns:
        The arrays, unchecked.

    Raises:
        DataError: The file is missing, unreadable, cut short or damaged, or lacks one of the four arrays.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"no data file at {path}; check the path") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    with file:
        if not zipfile.is_zipfile(file):
            raise DataError(f"{path} is not a whole .npz file; {remedy}")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                missing = [key for key in KEYS if key not in arrays.files]
                if missing:
                    held = ", ".join(arrays.files) or "nothing"
                    raise DataError(f"{path} lacks {', '.join(missing)} (it holds {held}); {remedy}")
                return Raw(*(_member(arrays, key, path, remedy) for key in KEYS))
        except _BROKEN as error:
            raise _broken(path, error, remedy) from None


def write_npz(path: Path, raw: Raw) -> None:
    """Write the four arrays, uncompressed (reading is then several times faster), whole on the disk on return.

    Args:
        path: The file to write. It is not replaced atomically: write beside the goal, then rename.
        raw: The arrays.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    with path.open("wb") as file:
        np.savez(file, x_train=raw.x_train, y_train=raw.y_train, x_test=raw.x_test, y_test=raw.y_test)
        file.flush()
        os.fsync(file.fileno())


def _member(arrays: np.lib.npyio.NpzFile, key: str, path: Path, remedy: str) -> Array:
    try:
        array = arrays[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(f"{path}: {key} is an array of Python objects; give numbers of one type") from None
    if not isinstance(array, np.ndarray):  # a member that does not begin as an array does is given as plain bytes
        raise DataError(f"{path}: {key} is not an array; {remedy}")
    return array


def _broken(path: Path, error: BaseException, remedy: str) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path} is damaged ({reason}); {remedy}")
