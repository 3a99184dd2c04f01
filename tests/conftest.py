"""What holds for every test: one thread, and databases of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.postgres import Postgres

# Tests beside each other do not wait, and sums come in one order.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL, started when the first test wants it."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a database may be made: the path of a file, and the URL of an empty database on a server."""
    monkeypatch.chdir(tmp_path)  # files of a server's database stand in the current folder
    if request.param == "sqlite":
        return str(tmp_path / "x.db")
    make: Callable[[], str] = request.getfixturevalue("postgres").create
    return make()
