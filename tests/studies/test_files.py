"""Files in a folder and in a bucket: whole or not there, nowhere else than in their place, gone when cleared."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.artifacts.exceptions import ArtifactNotFound

from sizer.errors import InputError
from studies.artifacts import Artifacts, files_of, settled
from studies.database import locate
from studies.files import Files, at, place_of
from tests.studies.buckets import BUCKET, bucket

ODD = (
    "../out",
    "/etc/passwd",
    "a/../../out",
    "a\\..\\out",
    "%2e%2e/out",
    "%252e%252e",
    "",
    ".",
    "a//b",
    ".hidden",
    "a\0b",
)


@pytest.fixture(scope="module")
def service() -> Iterator[dict[str, str]]:
    """A service with a bucket, and this process pointed at it."""
    with bucket() as environment, pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield environment
    at.cache_clear()


@pytest.fixture(params=["folder", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Files at a place of either kind."""
    if request.param == "folder":
        (tmp_path / "place").mkdir()
        return at(str(tmp_path / "place"))
    request.getfixturevalue("service")
    return at(f"s3://{BUCKET}/{tmp_path.name}")


def read(files: Files, name: str) -> bytes:
    with files.open(name) as stream:
        return stream.read()


def test_files_are_put_taken_copied_listed_and_cleared(files: Files, tmp_path: Path) -> None:
    assert (files.names("runs"), files.has("runs/a-0")) == ([], False)
    files.make("runs/a-0")
    files.make("artifacts")
    assert (files.names("runs"), files.names("runs/a-0"), files.has("runs/a-0")) == (["a-0"], [], True)
    large = os.urandom(9 * 2**20)
    files.put(io.BytesIO(b"old"), "runs/a-0/x")
    files.put(io.BytesIO(large), "runs/a-0/x")
    files.copy("runs/a-0/x", "artifacts/y")
    assert files.names("runs/a-0") == ["x"]
    files.clear("runs/a-0")
    files.clear("runs/a-0")
    assert (files.names("runs"), files.has("runs/a-0")) == ([], False)
    assert read(files, "artifacts/y") == large
    files.get("artifacts/y", tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == large
    files.remove("artifacts/y")
    files.remove("artifacts/y")
    assert files.names("artifacts") == []


def test_what_is_not_there_is_said_so(files: Files, tmp_path: Path) -> None:
    files.make("artifacts")
    with pytest.raises(FileNotFoundError):
        files.open("artifacts/none").close()
    with pytest.raises(FileNotFoundError):
        files.get("artifacts/none", tmp_path / "taken")
    with pytest.raises(FileNotFoundError):
        files.copy("artifacts/none", "artifacts/other")
    assert files.names("artifacts") == []


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_leads_elsewhere_is_refused_by_everything(files: Files, tmp_path: Path, name: str) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    for action in (
        lambda: files.open(name), lambda: files.put(io.BytesIO(b"x"), name), lambda: files.get(name, kept),
        lambda: files.copy("a", name), lambda: files.copy(name, "a"), lambda: files.remove(name),
        lambda: files.clear(name), lambda: files.make(name), lambda: files.names(name), lambda: files.has(name),
    ):  # fmt: skip
        with pytest.raises(InputError, match="is no name of a file here"):
            action()
    assert kept.read_text() == "kept"


def test_a_link_out_of_the_place_is_not_followed(tmp_path: Path) -> None:
    files = at(str(tmp_path / "place"))
    files.make("artifacts")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "place" / "artifacts" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "place" / "runs").symlink_to(tmp_path)
    for action in (
        lambda: files.open("artifacts/link"), lambda: files.put(io.BytesIO(b"x"), "artifacts/link"),
        lambda: files.open("runs/secret"), lambda: files.clear("runs"), lambda: files.make("runs/x"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="by a link: remove the link"):
            action()
    assert (tmp_path / "secret").read_text() == "secret"


class _Breaks(io.BytesIO):
    """A stream that ends with an error after some bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(4)


def test_what_is_not_whole_is_not_there(files: Files) -> None:
    files.make("artifacts")
    with pytest.raises((OSError, InputError), match="Input/output error"):
        files.put(_Breaks(b"eight by"), "artifacts/x")
    assert files.names("artifacts") == []


def test_a_bucket_that_is_not_there_is_one_line(service: dict[str, str]) -> None:
    with pytest.raises(InputError, match="s3://nowhere/x does not serve as a place for files") as caught:
        at("s3://nowhere/x").make("runs")
    assert "\n" not in str(caught.value)
    assert service["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("http://host/x", "http://host/x is no place for files: give a folder, s3://BUCKET/PREFIX or gs://"),
        ("s3:///x", "is no place for files"),
        ("s3://key:hidden@bucket/x", "s3://bucket/x: a place for files takes no keys or options; set AWS_ACCESS_KEY"),
        ("s3://bucket/x?secret_key=hidden", "s3://bucket/x: a place for files takes no keys or options"),
        ("s3://bucket/a/../b", "its prefix must have no empty part, '.', '..' or backslash"),
    ],
)
def test_a_place_that_can_be_none_is_refused_without_its_keys(given: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        place_of(given)
    assert says in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_places_are_folders_or_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of("here") == place_of(f"file://{tmp_path}/here") == str(tmp_path / "here")
    assert place_of("s3://bucket/a/b/") == "s3://bucket/a/b"
    assert place_of("gs://bucket") == "gs://bucket"


def test_evaluations_that_share_a_place_do_not_share_a_folder(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    found = []
    for name in ("one.db", "two.db"):
        database = locate(tmp_path / name)[0]
        database.create()
        assert files_of(database, "demo").place == str(tmp_path / name).replace(".db", ".files")
        found.append(settled(database, "demo", shared)[1])
        assert settled(database, "demo", None) == (at(str(database.files)), None)
        database.close()
    assert len(set(found)) == 2
    assert all(place is not None and place.startswith(f"{shared}/demo-") for place in found)


def test_the_dashboard_reads_and_keeps_artifacts(tmp_path: Path) -> None:
    database = locate(tmp_path / "x.db")[0]
    database.create()
    store = Artifacts(database)
    store.write("ab12", io.BytesIO(b"a note"))
    with store.open_reader("ab12") as stream:
        assert stream.read() == b"a note"
    store.remove("ab12")
    store.remove("../x.db")
    for name in ("ab12", *ODD):
        with pytest.raises(ArtifactNotFound):
            store.open_reader(name)
    assert (tmp_path / "x.db").exists()
    database.close()
