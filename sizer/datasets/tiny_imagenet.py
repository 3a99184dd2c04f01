"""Tiny ImageNet (Le and Yang, Tiny ImageNet visual recognition challenge, 2015): 110,000 colour images, 64 x 64.

The labels of its test part are not public: its validation part is the test part here, and validation rows are held out
of the training part as in every data set.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sizer.datasets.cache import cached
from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

FILES = {"http://cs231n.stanford.edu/tiny-imagenet-200.zip": "md5:90528d7ca1a48142e341f4ef8d21d0de"}
ROOT = "tiny-imagenet-200"

_SIDE = 64


def read(folder: Path) -> Raw:
    """Read 100,000 + 10,000 images (N, 64, 64, 3) of 0..255 and labels 0..199, downloaded the first time.

    Labels count the classes in the order of wnids.txt. The arrays take 1.4 GB.
    """
    return cached("tiny_imagenet", folder, FILES, parse)


def parse(files: Sequence[Path]) -> Raw:
    """Read the zip, the only file given. Images are decoded one at a time into the array that is given.

    Raises:
        DataError: The zip lacks a part, an image cannot be read, or Pillow is missing.
    """
    with zipfile.ZipFile(files[0]) as archive:
        classes = {wnid: label for label, wnid in enumerate(_text(archive, "wnids.txt").split())}
        train = _trained(archive.namelist(), classes)
        annotations = [line.split() for line in _text(archive, "val/val_annotations.txt").splitlines() if line]
        test = {f"{ROOT}/val/images/{image}": wnid for image, wnid, *_ in annotations}
        return Raw(*_images(archive, train, classes), *_images(archive, test, classes))


def _trained(names: Sequence[str], classes: Mapping[str, int]) -> dict[str, str]:
    """The training images in the zip's order, with the class whose folder each is in."""
    found = {}
    for name in names:
        match name.split("/"):
            case [root, "train", wnid, "images", image] if root == ROOT and image:
                found[name] = wnid
    if missing := set(classes) - set(found.values()):
        raise DataError(f"the Tiny ImageNet zip lacks training images of class {min(missing)}; download it again")
    return found


def _text(archive: zipfile.ZipFile, name: str) -> str:
    try:
        return archive.read(f"{ROOT}/{name}").decode()
    except KeyError:
        raise DataError(f"the Tiny ImageNet zip lacks {ROOT}/{name}; download it again") from None


def _images(archive: zipfile.ZipFile, wnids: Mapping[str, str], classes: Mapping[str, int]) -> tuple[Array, Array]:
    try:
        from PIL import Image
    except ImportError:
        raise DataError("tiny_imagenet comes as JPEG images, which need Pillow: pip install pillow") from None
    x = np.empty((len(wnids), _SIDE, _SIDE, 3), np.uint8)
    for row, name in zip(x, wnids, strict=True):
        try:
            with Image.open(io.BytesIO(archive.read(name))) as image:
                if image.size != (_SIDE, _SIDE):
                    raise ValueError(f"its size is {image.size}")
                row[:] = np.asarray(image.convert("RGB"))  # some are grey
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"the Tiny ImageNet zip has no image of 64 x 64 at {name} ({error})") from None
    return x, np.array([classes[wnid] for wnid in wnids.values()], np.int64)
