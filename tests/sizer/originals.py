"""Original files of the downloaded data sets in small, as their homes serve them, and a home on this machine."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

from sizer.datasets import cifar10
from sizer.datasets.raw import Array, Raw


def images(rows: int, *shape: int) -> Array:
    """Bytes in which every row, pixel and channel can be told from every other."""
    return (np.arange(rows * np.prod(shape)) * 7 % 251).astype(np.uint8).reshape(rows, *shape)


def small(*shape: int, train: int = 40, test: int = 20) -> Raw:
    """A data set of ten classes that come in turn."""
    return Raw(
        images(train, *shape), np.arange(train) % 10, images(test + 1, *shape)[1:], np.arange(test)[::-1].copy() % 10
    )


def idx_bytes(array: Array) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, raw: Raw) -> list[Path]:
    """Four gzipped IDX files in the order in which they are parsed."""
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    for name, array in zip(names, (raw.x_train, raw.y_train, raw.x_test, raw.y_test), strict=True):
        (folder / name).write_bytes(gzip.compress(idx_bytes(array)))
    return [folder / name for name in names]


def write_cifar(folder: Path, raw: Raw) -> list[Path]:
    """The tar of the binary edition: five training batches and a test batch."""
    path = folder / "cifar-10-binary.tar.gz"
    parts = zip(np.split(raw.x_train, 5), np.split(raw.y_train, 5), strict=True)
    batches = dict(zip(cifar10.TRAIN, parts, strict=True))
    batches[cifar10.TEST[0]] = (raw.x_test, raw.y_test)
    with tarfile.open(path, "w:gz") as archive:
        for name, (x, y) in batches.items():
            data = b"".join(
                bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(x, y, strict=True)
            )
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return [path]


def hashes(files: list[Path], home: str, algorithm: str = "md5") -> Mapping[str, str]:
    """What `cached` is given: URL -> hash."""
    return {
        f"{home}/{file.name}": f"{algorithm}:{hashlib.new(algorithm, file.read_bytes()).hexdigest()}" for file in files
    }


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def home(folder: Path) -> Iterator[tuple[str, ThreadingHTTPServer]]:
    """Serve a folder on loopback; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
