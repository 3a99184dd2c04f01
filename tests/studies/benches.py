"""A database, and drivers on it that are fed by hand."""

from __future__ import annotations

from typing import Any

from studies.database import locate
from studies.driver import Driver
from studies.lease import Lease
from studies.plan import Plan
from tests.studies.sweeps import Seen, rows

DATA = {"name": "digits", "task": "classification", "input_shape": [1, 8, 8], "outputs": 10, "preprocessing": {}}


class Bench:
    """A database, and one driver after the other on it."""

    def __init__(self, place: str) -> None:
        self.path = place
        self.database = locate(place)[0]
        self.database.create()
        self.lease: Lease | None = None
        self.seen = Seen()

    def start(self, plan: Plan) -> Driver:
        """A new driver; the one before is gone without a word."""
        if self.lease is not None:
            self.lease.release()
        self.lease = Lease(self.database, plan.name)
        self.seen = Seen()
        driver = Driver(plan, self.database, self.lease, self.seen)
        driver.begin(DATA)
        return driver

    def said(self, kind: str) -> list[tuple[str, ...]]:
        """What the driver told, of one kind."""
        return self.seen.of(kind)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What SQL says."""
        return rows(self.path, query)
