"""Databases, empty or with drivers on them, and one Ray for all tests that sweep: to start it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from studies import cluster
from studies.database import Database, locate
from tests.studies.benches import Bench


@pytest.fixture(scope="session")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine; sweeps find it and leave it running."""
    with cluster.connected(None, 1, 0, tmp_path_factory.mktemp("ray")):
        yield


@pytest.fixture
def database(place: str) -> Iterator[Database]:
    """A fresh one, its tables made."""
    made, fresh = locate(place)
    assert fresh
    made.create()
    yield made
    made.close()


@pytest.fixture
def bench(place: str) -> Iterator[Bench]:
    """A database, and one driver after the other on it."""
    made = Bench(place)
    yield made
    if made.lease is not None:
        made.lease.release()
    made.database.close()
