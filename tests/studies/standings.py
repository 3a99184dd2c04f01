"""An evaluation whose trials ended in every way, told by hand."""

from __future__ import annotations

from studies.database import Database, locate
from studies.driver import Driver
from studies.lease import Lease
from tests.studies.sweeps import Seen, epoch, small_plan

DATA = {"name": "digits", "task": "classification", "input_shape": [1, 8, 8], "outputs": 10, "preprocessing": {}}


def told(place: str) -> Database:
    """A database at a place, made and filled: four trials an arm, of which the last of `fixed` runs or is to begin."""
    database = locate(place)[0]
    database.create()
    ways = [("complete", ""), ("collapsed", "a layer emptied"), ("diverged", "the loss became NaN in epoch 2")]
    with Lease(database, "small") as lease:
        driver = Driver(small_plan(trials=4), database, lease, Seen())
        driver.begin(DATA)
        for count in range(7):
            member = driver.next()
            assert member is not None
            for number in (1, 2):
                driver.epoch(member["trial_id"], epoch(number, 0.1 * number + 0.01 * count))
            if count < 6:
                driver.end(member["trial_id"], *ways[count % 3])
    return database
