"""Files in a bucket of S3, of what speaks its protocol, or of Google Cloud Storage.

Keys and endpoint come from the environment of the machine (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL), as every tool for buckets has them. An object appears when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pyarrow import fs  # type: ignore[import-untyped]  # it has no types

from sizer.errors import InputError
from studies.files import PIECE, checked

# What stands for a folder, which a bucket has not.
_MARK = ".folder"


class Bucket:
    """A prefix in a bucket; see `studies.files.Files`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.folder: Path | None = None
        scheme, _, self._root = place.partition("://")
        self._fs: Any = _s3(self._root.partition("/")[0]) if scheme == "s3" else fs.GcsFileSystem()

    def make(self, within: str) -> None:
        with self._answering(), self._fs.open_output_stream(self._mark(within)) as stream:
            stream.write(b"\n")

    def has(self, within: str) -> bool:
        with self._answering():
            return bool(self._fs.get_file_info(self._mark(within)).is_file)

    def names(self, within: str) -> list[str]:
        with self._answering():
            found = self._fs.get_file_info(fs.FileSelector(self._path(within), allow_not_found=True))
        return sorted(entry.base_name for entry in found if entry.base_name != _MARK)

    def open(self, name: str) -> BinaryIO:
        with self._answering():
            stream: BinaryIO = self._fs.open_input_file(self._path(name))
            return stream

    def put(self, content: BinaryIO, name: str) -> None:
        path = self._path(name)
        with self._answering():
            try:
                with self._fs.open_output_stream(path) as stream:
                    shutil.copyfileobj(content, stream, PIECE)
            except OSError:
                # To leave the stream is to end the object, be it whole or not.
                with contextlib.suppress(OSError):
                    self._fs.delete_file(path)
                raise

    def get(self, name: str, target: Path) -> None:
        with self.open(name) as stream, target.open("wb") as file:
            while True:
                with self._answering():
                    piece = stream.read(PIECE)
                if not piece:
                    break
                file.write(piece)

    def copy(self, name: str, to: str) -> None:
        source, target = self._path(name), self._path(to)
        with self._answering():
            if not self._fs.get_file_info(source).is_file:
                raise FileNotFoundError(f"{self.place}/{name}")
            self._fs.copy_file(source, target)

    def remove(self, name: str) -> None:
        with self._answering(), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(self._path(name))

    def clear(self, within: str) -> None:
        with self._answering(), contextlib.suppress(FileNotFoundError):
            # The mark goes first: who looks for it before writing writes no more.
            with contextlib.suppress(FileNotFoundError):
                self._fs.delete_file(self._mark(within))
            self._fs.delete_dir(self._path(within))

    def _path(self, name: str) -> str:
        return "/".join([self._root, *checked(name)])

    def _mark(self, within: str) -> str:
        return f"{self._path(within)}/{_MARK}"

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            line = str(error).strip().splitlines()[0]
            raise InputError(
                f"{self.place} does not serve as a place for files: {line}. Is the bucket there, and are"
                " AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL right on every machine?"
            ) from None


def _s3(bucket: str) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        with contextlib.suppress(OSError):
            region = fs.resolve_s3_region(bucket)
    # Tries for some 15 s: a service that is busy for a moment should not end a sweep of days.
    return fs.S3FileSystem(
        **({"region": region} if region else {}),
        endpoint_override=endpoint,
        connect_timeout=5,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=6),
        allow_delayed_open=True,
    )
