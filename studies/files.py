"""Where the files of an evaluation lie: a folder that every machine sees, or a bucket that every machine reaches.

Below the place are `artifacts/`, the weights that are kept, and `runs/`, what trials in flight leave. A file is there
whole or not at all. Names are made by us; one that could lead out of the place is refused.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from sizer.errors import InputError

ARTIFACTS = "artifacts"
RUNS = "runs"
PIECE = 8 * 2**20
"""Bytes that are read or written at once."""
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._+-]+")
_BUCKETS = ("s3", "gs")
_PART_LASTS = 3600.0


class Files(Protocol):
    """One place. Names are relative to it, their parts parted by `/`.

    Attributes:
        place: The folder's path or the bucket's URI; `at` gives the same files back for it.
        folder: Where they can be written directly; None in a bucket.
    """

    place: str
    folder: Path | None

    def make(self, within: str) -> None:
        """Makes a folder, and those above it."""

    def has(self, within: str) -> bool:
        """Whether a folder was made, and not cleared since."""

    def names(self, within: str) -> list[str]:
        """What lies in a folder, of which there may be none."""

    def open(self, name: str) -> BinaryIO:
        """A file's bytes; FileNotFoundError where there is none."""

    def put(self, content: BinaryIO, name: str) -> None:
        """Puts bytes there, over what has the name. Its folder must have been made."""

    def get(self, name: str, target: Path) -> None:
        """Takes a file out; FileNotFoundError where there is none."""

    def copy(self, name: str, to: str) -> None:
        """Puts a file there once more under another name; FileNotFoundError where there is none."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    def clear(self, within: str) -> None:
        """Removes a folder with all that is in it. Who still writes there does not bring it back."""


@lru_cache(maxsize=16)
def at(place: str) -> Files:
    """The files at a place as `place_of` gives it."""
    if "://" not in place:
        return _Folder(Path(place))
    # Imported late: a folder needs none of what speaks to buckets.
    from studies.bucket import Bucket

    return Bucket(place)


def place_of(given: str) -> str:
    """A place as the user named it, as an absolute path or a URI without what would be a secret in it.

    Raises:
        InputError: It is none that we know, or holds keys.
    """
    if "://" not in given:
        return str(Path(given).expanduser().resolve())
    parts = urlsplit(given)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return str(Path(unquote(parts.path)).resolve())
    if parts.scheme not in _BUCKETS or not parts.netloc:
        raise InputError(
            f"{_shown(given)} is no place for files: give a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{_shown(given)}: a place for files takes no keys or options; set AWS_ACCESS_KEY_ID,"
            " AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL in the environment of every machine"
        )
    path = parts.path.strip("/")
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")[: len(path)]):
        raise InputError(f"{given} is no place for files: its prefix must have no empty part, '.', '..' or backslash")
    return f"{parts.scheme}://{parts.netloc}" + (f"/{path}" if path else "")


def _shown(given: str) -> str:
    """A URI without the keys that may stand in it."""
    parts = urlsplit(given)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def checked(name: str) -> list[str]:
    """The parts of a name.

    Raises:
        InputError: It is no name of ours: empty, absolute, with `..`, a backslash or any other odd character.
    """
    parts = name.split("/")
    if not all(_NAME.fullmatch(part) for part in parts):
        raise InputError(f"{name!r} is no name of a file here: letters, digits and '._+-' only")
    return parts


class _Folder:
    """A folder, of this machine or shared among all."""

    def __init__(self, root: Path) -> None:
        self.place = str(root)
        self.folder: Path | None = root
        self._root = root

    def make(self, within: str) -> None:
        path = self._path(within)
        path.mkdir(parents=True, exist_ok=True)
        # What a process that was killed in the middle of a copy left; others may be copying now.
        for part in path.glob(".*.part"):
            with contextlib.suppress(OSError):
                if part.stat().st_mtime < time.time() - _PART_LASTS:
                    part.unlink()

    def has(self, within: str) -> bool:
        return self._path(within).is_dir()

    def names(self, within: str) -> list[str]:
        try:
            return sorted(entry.name for entry in self._path(within).iterdir())
        except FileNotFoundError:
            return []

    def open(self, name: str) -> BinaryIO:
        return self._path(name).open("rb")

    def put(self, content: BinaryIO, name: str) -> None:
        _written(content, self._path(name))

    def get(self, name: str, target: Path) -> None:
        _linked(self._path(name), target)

    def copy(self, name: str, to: str) -> None:
        _linked(self._path(name), self._path(to))

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def clear(self, within: str) -> None:
        path = self._path(within)
        # Under another name first: who writes by the old one then finds no folder, and makes none.
        gone = path.with_name(f"{path.name}.gone-{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path.rename(gone), ignore_errors=True)

    def _path(self, name: str) -> Path:
        path = self._root.joinpath(*checked(name))
        if self._root.resolve() not in path.resolve().parents:
            raise InputError(f"{name} leads out of {self._root}, by a link: remove the link")
        return path


def _linked(source: Path, target: Path) -> None:
    """The same file once more: files that were put are replaced, never written to."""
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        with source.open("rb") as content:
            _written(content, target)
        return
    try:
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _written(content: BinaryIO, target: Path) -> None:
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(content, file, PIECE)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
