"""Original files of the downloaded data sets in small, as their homes serve them, and a home on this machine."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np

from sizer.datasets import cifar10, cifar100, puzzle15, tiny_imagenet
from sizer.datasets.raw import Array, Raw


def images(rows: int, *shape: int) -> Array:
    """Bytes in which every row, pixel and channel can be told from every other."""
    return (np.arange(rows * np.prod(shape)) * 7 % 251).astype(np.uint8).reshape(rows, *shape)


def small(*shape: int, train: int = 40, test: int = 20) -> Raw:
    """A data set of ten classes that come in turn."""
    return Raw(
        images(train, *shape), np.arange(train) % 10, images(test + 1, *shape)[1:], np.arange(test)[::-1].copy() % 10
    )


SHAPES = dict.fromkeys(("cifar10", "cifar100", "svhn"), (32, 32, 3)) | {"tiny_imagenet": (64, 64, 3)}
"""Of one image, where it is not 28 x 28 and grey."""


def little(name: str) -> Raw:
    """A data set in small, with the shapes and the task of the one of this name."""
    if name != "puzzle15":
        return small(*SHAPES.get(name, (28, 28)))
    rng = np.random.default_rng(0)
    x = puzzle15.one_hot(rng.permuted(np.tile(np.arange(16), (500, 1)), axis=1))
    y = rng.integers(1, 60, 500).astype(np.float32)
    return Raw(x[100:], y[100:], x[:100], y[:100])


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


def write_cifar100(folder: Path, raw: Raw) -> list[Path]:
    """The tar of the binary edition: a training and a test batch, a coarse label before each fine one."""
    path = folder / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, x, y in ((*cifar100.TRAIN, raw.x_train, raw.y_train), (*cifar100.TEST, raw.x_test, raw.y_test)):
            data = b"".join(
                bytes([19 - label, label]) + image.transpose(2, 0, 1).tobytes()
                for image, label in zip(x, y, strict=True)
            )
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return [path]


def write_svhn(folder: Path, raw: Raw) -> list[Path]:
    """Two compressed MATLAB 5 files, images last and the digit 0 as 10."""
    from scipy.io import savemat

    files = []
    for part, x, y in (("train", raw.x_train, raw.y_train), ("test", raw.x_test, raw.y_test)):
        files.append(folder / f"{part}_32x32.mat")
        labels = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        savemat(files[-1], {"X": x.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return files


def wnid(label: int) -> str:
    """Classes are not listed in the order of the alphabet."""
    return f"n{(label * 7 + 3) % 10:08}"


def write_tiny_imagenet(folder: Path, raw: Raw) -> list[Path]:
    """The zip: training images in a folder a class, validation images named in a table, test images without labels."""
    path = folder / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        put = {"wnids.txt": "".join(f"{wnid(label)}\n" for label in range(10)).encode(), "train/": b""}
        for i, (image, label) in enumerate(zip(raw.x_train, raw.y_train, strict=True)):
            put[f"train/{wnid(label)}/{wnid(label)}_boxes.txt"] = b"0\t0\t62\t62\n"
            put[f"train/{wnid(label)}/images/{wnid(label)}_{i}.JPEG"] = jpeg(image)
        table = [f"val_{i}.JPEG\t{wnid(label)}\t0\t32\t44\t62\n" for i, label in enumerate(raw.y_test)]
        put["val/val_annotations.txt"] = "".join(table).encode()
        for i, image in reversed(list(enumerate(raw.x_test))):
            put[f"val/images/val_{i}.JPEG"] = jpeg(image)
        put["test/images/test_0.JPEG"] = jpeg(raw.x_test[0])
        for name, data in put.items():
            archive.writestr(f"{tiny_imagenet.ROOT}/{name}", data)
    return [path]


def jpeg(image: Array) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=100, subsampling=0)
    return data.getvalue()


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
