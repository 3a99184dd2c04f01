"""Whoever runs a sweep can be asked from anywhere to end it."""

from __future__ import annotations

import os
import socket
import time

import pytest

from sizer.errors import InputError
from studies import lease as leases
from studies import stopping
from studies.database import Database, locate
from studies.lease import Lease


@pytest.fixture
def database(place: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A fresh one, whose leases are renewed often."""
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.05)
    made, _ = locate(place)
    made.create()
    return made


def test_the_driver_hears_who_asked_when_it_renews_its_lease(database: Database) -> None:
    with Lease(database, "p") as held, Lease(database, "q") as other:
        assert held.asked == ""
        assert stopping.ask(database, "p") == f"process {os.getpid()} on {socket.gethostname()}"
        deadline = time.monotonic() + 10
        while not held.asked and time.monotonic() < deadline:
            time.sleep(0.02)
        assert held.asked.startswith(f"`sizer stop` on {socket.gethostname()} at 2")
        assert other.asked == ""


def test_who_was_asked_once_is_not_asked_again_by_a_new_lease(database: Database) -> None:
    with Lease(database, "p"):
        stopping.ask(database, "p")
        with database.engine.begin() as connection:  # the driver was killed, and another takes over
            connection.execute(leases.leases.update().values(expires=0, token="theirs"))
        with Lease(database, "p") as held:
            time.sleep(0.3)
            assert held.asked == ""


@pytest.mark.parametrize("lapsed", [False, True])
def test_where_nobody_runs_it_there_is_nothing_to_stop(database: Database, lapsed: bool) -> None:
    held = Lease(database, "p")
    held.release()
    if lapsed:
        with database.engine.begin() as connection:
            row = {"plan": "p", "token": "t", "host": "far", "machine": "far", "pid": 1, "started": "", "since": ""}
            connection.execute(leases.leases.insert().values(**row, expires=time.time() - 1))
    with pytest.raises(InputError, match=r"^nobody runs p: there is nothing to stop$"):
        stopping.ask(database, "p")
