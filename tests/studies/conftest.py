"""One Ray for all tests that sweep in this process: to start it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from studies import cluster


@pytest.fixture(scope="session")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray on this machine; sweeps find it and leave it running."""
    with cluster.connected(None, 1, 0, tmp_path_factory.mktemp("ray")):
        yield
