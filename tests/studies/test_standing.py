"""Where an evaluation stands is counted by the database, of either kind, as its rows say it."""

import pytest

from sizer.errors import InputError
from studies import query
from studies.lease import Lease
from studies.standing import not_begun, standing
from tests.studies.standings import told
from tests.studies.sweeps import small_plan


def test_trials_are_counted_by_state_and_epochs_by_arm_and_what_went_wrong_is_named(place: str) -> None:
    database = told(place)
    said, trials = standing(database, "small"), query.trials(database, "small")
    for arm in said.arms:
        own = trials[trials["arm"] == arm.arm]
        states = own["state"].value_counts()
        assert (arm.complete, arm.failed, arm.running) == tuple(
            states.get(state, 0) for state in ("COMPLETE", "FAIL", "RUNNING")
        )
        assert arm.collapsed == ((own["status"] == "collapsed") & (own["state"] == "COMPLETE")).sum()
        assert arm.waiting == arm.planned - arm.complete - arm.failed - arm.running
        assert arm.epochs == own["epochs"].sum()
    odd = trials[trials["status"].isin(["collapsed", "diverged"])]
    assert [(each.arm, each.number, each.status, each.reason) for each in said.unusual] == [
        tuple(row) for row in odd[["arm", "number", "status", "reason"]].itertuples(index=False)
    ]
    assert len(said.unusual) == 4
    assert (said.state, said.held, said.driver) == ("stopped", False, query.NOBODY)
    with Lease(database, "small"):
        assert (standing(database, "small").state, standing(database, "small").held) == ("running", True)
    with pytest.raises(InputError, match="there are: small"):
        standing(database, "smal")


def test_a_plan_that_has_not_begun_has_all_to_do() -> None:
    said = not_begun(small_plan().spec(), "starting", "on its way")
    assert [(arm.planned, arm.waiting, arm.complete) for arm in said.arms] == [(2, 2, 0), (2, 2, 0)]
    assert (said.state, said.driver, said.held) == ("starting", "on its way", True)
