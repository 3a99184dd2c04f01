"""One trained evaluation, and one server of it, for all tests that only look."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.dashboards.served import Served, served
from tests.dashboards.swept import small_plan, sweep_here


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one evaluation; whoever changes it copies it first."""
    path = tmp_path_factory.mktemp("trained") / "sizer.db"
    sweep_here(small_plan(), path)
    return path


@pytest.fixture(scope="session")
def service(trained: Path) -> Iterator[Served]:
    """A server of that database, which starts nothing."""

    def start(*_: object) -> NoReturn:
        raise AssertionError("nothing is to be started here")

    with served(trained, start=start) as running:
        yield running
