"""Data sets that are made of one picture: what they read, and that what is no picture is one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sizer import datasets
from sizer.datasets import brightness, coordinates
from sizer.datasets.picture import grey
from sizer.errors import DataError, UnknownNameError


def picture(folder: Path, height: int = 20, width: int = 30, name: str = "drawn.png") -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_brightness_is_a_pixel_less_the_one_to_its_left_and_so_are_those_before_it(tmp_path: Path) -> None:
    file = picture(tmp_path)
    raw, pixels = brightness.read(tmp_path, file), grey(file).astype(np.float32) / 255
    rows = {tuple(np.round([*x, y], 5)) for part in ("train", "test")
            for x, y in zip(getattr(raw, f"x_{part}"), getattr(raw, f"y_{part}"), strict=True)}  # fmt: skip
    expected = set()
    for y in range(1, 20):
        for x in range(2, 29):
            left = pixels[y, x - 1]
            others = (pixels[y - 1, x], pixels[y - 1, x - 1], pixels[y - 1, x + 1], pixels[y, x - 2], pixels[y, x])
            expected.add(tuple(np.round([other - left for other in others], 5)))
    assert rows == expected
    assert len(raw.x_train) + len(raw.x_test) == 19 * 27


def test_coordinates_give_every_pixel_its_place(tmp_path: Path) -> None:
    file = picture(tmp_path)
    raw, pixels = coordinates.read(tmp_path, file), grey(file)
    for x, y in [*zip(raw.x_train, raw.y_train, strict=True), *zip(raw.x_test, raw.y_test, strict=True)]:
        right, down = round(float(x[0]) * 29), round(float(x[1]) * 19)
        assert round(float(y) * 255) == pixels[down, right]
    assert len(raw.x_train) + len(raw.x_test) == 600


@pytest.mark.parametrize("name", ["brightness", "coordinates"])
def test_the_default_picture_needs_no_file_and_another_is_named_with_its_own(name: str, tmp_path: Path) -> None:
    whole, other = datasets.load(name), datasets.load(f"{name}@{picture(tmp_path)}")
    assert (whole.task, whole.outputs, other.name) == ("regression", 1, f"{name}-drawn")
    assert len(whole.x_train) > 100_000
    assert other.input_shape == whole.input_shape


def test_colours_become_grey(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10), (255, 0, 0)).save(tmp_path / "red.jpg")
    assert np.abs(grey(tmp_path / "red.jpg").astype(int) - 76).max() <= 2


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = picture(tmp_path).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for file, line in (
        (tmp_path / "gone.png", "no picture at"),
        (tmp_path, "not a picture that can be read"),
        (tmp_path / "text.png", "not a picture that can be read"),
        (tmp_path / "cut.png", "not a picture that can be read"),
        (picture(tmp_path, 7, 30, "low.png"), "is too small: 30 x 7 pixels; give 8 x 8 or more"),
    ):
        with pytest.raises(DataError, match=line) as caught:
            datasets.load(f"coordinates@{file}")
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="digits is made of no picture: leave out @"):
        datasets.load(f"digits@{picture(tmp_path)}")
    with pytest.raises((DataError, UnknownNameError), match="brightnes"):
        datasets.load("brightnes@photo.png")


def test_the_file_of_a_name_is_known_and_may_be_put_elsewhere() -> None:
    assert datasets.file_of("coordinates@a/b.png") == Path("a/b.png")
    assert datasets.file_of("a/b.npz") == Path("a/b.npz")
    assert datasets.file_of("mnist") is None
    assert datasets.file_of("nothing@b.png") is None
    assert datasets.with_file("coordinates@a/b.png", "c.png") == "coordinates@c.png"
    assert datasets.with_file("a/b.npz", "c.npz") == "c.npz"
