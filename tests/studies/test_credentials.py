"""A database's password comes from the environment or a file, and shows nowhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dashboards.cli import main
from sizer.errors import InputError
from studies import credentials
from studies.database import locate, named
from tests.postgres import Postgres

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://sizer:{SECRET}@127.0.0.1:1/d",
        f"postgresql+psycopg://sizer:{SECRET}@127.0.0.1:1/d",
        f"postgresql://sizer:{SECRET}@@127.0.0.1:1/d",
        f"postgresql://sizer:{SECRET}@127.0.0.1:notaport/d",
        f"postgresql://127.0.0.1:1/d?user=sizer&password={SECRET}",
        f"postgresql+nosuch://sizer:{SECRET}@h/d",
    ],
)
def test_a_password_shows_in_no_error_and_is_refused_as_an_argument(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        locate(url)
    assert SECRET not in str(caught.value)
    with pytest.raises(SystemExit, match="2"):
        main(["status", "--db", url])
    said = capsys.readouterr().err
    assert SECRET not in said
    assert "on the command line shows its password" in said
    assert credentials.FILE in said
    assert said.count("\n") == 1
    monkeypatch.setenv("SIZER_DB", url)
    with pytest.raises(SystemExit, match="2"):
        main(["status"])
    said = capsys.readouterr().err
    assert SECRET not in said
    assert "on the command line" not in said


def test_the_password_is_read_from_a_file_or_as_libpq_reads_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_password = postgres.create()
    plain = postgres.url(with_password.rpartition("/")[2], password=False)
    secret = tmp_path / "secret"
    monkeypatch.setenv(credentials.FILE, str(secret))
    with pytest.raises(InputError, match=r"SIZER_DB_PASSWORD_FILE=.* cannot be read: No such file"):
        locate(plain)
    secret.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        locate(plain)
    secret.write_text(f"{postgres.password}\n")
    assert locate(plain)[1]
    monkeypatch.delenv(credentials.FILE)
    with pytest.raises(InputError, match="password"):
        locate(plain)
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    assert locate(plain)[1]
    monkeypatch.delenv("PGPASSWORD")
    passes = tmp_path / "pgpass"
    passes.write_text(f"127.0.0.1:{postgres.port}:*:sizer:{postgres.password}\n")
    passes.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passes))
    assert locate(plain)[1]


def test_a_database_is_never_pickled_nor_shown_with_its_password() -> None:
    database = named(f"postgresql://sizer:{SECRET}@127.0.0.1:1/d")
    with pytest.raises(TypeError, match="may hold a password"):
        pickle.dumps(database)
    assert SECRET not in f"{database.url} {database.url!r} {database.engine!r} {database!r}"
