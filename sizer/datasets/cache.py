"""Where data sets are kept: one NAME.npz each, downloaded and hash-checked or made once, then read without network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sizer.datasets.npz import read_npz, write_npz
from sizer.datasets.raw import Raw
from sizer.errors import DataError


def data_folder(folder: Path | None = None) -> Path:
    """Say where data sets are kept.

    Args:
        folder: The caller's choice, which goes before everything.

    Returns:
        `folder`, else the folder that the environment names as SIZER_DATA, else the platform's cache folder.
    """
    if folder is not None:
        return folder
    named = os.environ.get("SIZER_DATA")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("sizer")


def cached(name: str, folder: Path, files: Mapping[str, str], parse: Callable[[Sequence[Path]], Raw]) -> Raw:
    """Read NAME.npz from the data folder, after downloading it where it is not there.

    Args:
        name: The data set.
        folder: The data folder; made where it is missing.
        files: The original files: URL -> hash, as ``md5:...`` or ``sha256:...``.
        parse: Makes the arrays of the downloaded files, which it is given in the order of `files`.

    Returns:
        The arrays.

    Raises:
        DataError: The kept file is broken, a home cannot be reached or serves something else, or the folder cannot be
            written.
    """
    whole = folder / f"{name}.npz"
    return kept(
        name,
        folder,
        lambda part: parse([_download(url, known, part, whole) for url, known in files.items()]),
        "downloaded",
    )


def kept(name: str, folder: Path, make: Callable[[Path], Raw], done: str = "made") -> Raw:
    """Read NAME.npz from the data folder, after putting it there if it is not.

    What `make` writes and the .npz are written in a folder of their own beside it and the whole file is renamed into
    place, so neither an interruption nor a second process leaves or sees half a file.

    Args:
        name: The data set.
        folder: The data folder; made where it is missing.
        make: Gives the arrays; it may write into the folder that it is given, which is deleted afterwards.
        done: What `make` does, as messages call it.

    Returns:
        The arrays.

    Raises:
        DataError: The kept file is broken, or the folder cannot be written; and what `make` raises.
    """
    file = folder / f"{name}.npz"
    try:
        if file.exists():
            return read_npz(file, remedy=f"delete it, and it is {done} again")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder) as part:
            raw = make(Path(part))
            whole = Path(part) / file.name
            write_npz(whole, raw)
            whole.replace(file)
    except OSError as error:
        raise DataError(
            f"cannot keep {name} in the data folder {folder}: {error.strerror or error}; "
            "make room or name another folder with SIZER_DATA"
        ) from None
    return raw


def _download(url: str, known_hash: str, folder: Path, kept: Path) -> Path:
    import pooch  # type: ignore[import-untyped]  # pooch ships no types
    import requests

    instead = f"put the arrays x_train, y_train, x_test, y_test as {kept.name} into {kept.parent}"
    try:
        return Path(pooch.retrieve(url, known_hash, fname=url.rpartition("/")[2], path=folder))
    except requests.RequestException as error:
        raise DataError(f"cannot download {url} ({_reason(error)}); try again, or {instead}") from None
    except ValueError:
        raise DataError(f"{url} serves a file whose hash is not {known_hash}; try again, or {instead}") from None


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__
