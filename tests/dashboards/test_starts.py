"""The widths that sizing arms start from are read off the plan, or off an arm that trains the network unsized."""

from typing import Any

import pandas as pd
import pytest

from dashboards.starts import starts
from studies.plan import Plan
from tests.frames import LAYERS, evaluation


def told(trials: pd.DataFrame | None = None, arms: dict[str, Any] | None = None, **values: Any) -> Any:
    given = {"name": "demo", "data": "digits", "network": "mlp", "widths": [30, 20, 10], "epochs": 3, "trials": 2}
    plan = Plan(**{**given, "arms": arms or {"shrinknets": {}}, **values})
    return starts(plan.spec(), evaluation(trials=1)[0] if trials is None else trials)


def test_sizing_arms_start_from_the_plans_widths_and_baselines_are_not_sized() -> None:
    arms = {"shrinknets": {}, "fixed": {"widths": {"low": 4, "high": 16}}}
    assert told(arms=arms) == {"shrinknets": dict(zip(LAYERS, (30, 20, 10), strict=True))}


def test_a_plan_without_widths_starts_from_the_networks_own() -> None:
    plan = Plan(name="demo", data="digits", network="mlp", epochs=1, trials=1, arms={"shrinknets": {}})
    assert starts(plan.spec(), evaluation(trials=1)[0]) == {"shrinknets": plan.start_widths()}


def test_an_arm_may_start_elsewhere() -> None:
    arms = {
        "listed": {"method": "auto-sizing", "start": [3, 4, 5]},
        "cut": {"method": "auto-sizing", "start": {"cut": 0.45}},
        "taken": {"method": "auto-sizing", "start": {"mean_of": "listed"}},
    }
    found = told(arms=arms)
    assert list(found) == ["listed", "cut"]
    assert list(found["listed"].values()) == [3, 4, 5]
    assert list(found["cut"].values()) == [round(0.55 * width) for width in (30, 20, 10)]


def test_stages_start_nothing() -> None:
    assert list(told(arms={"shrinknets": {"learning_rate": [1e-3, 1e-2]}})) == ["shrinknets"]


@pytest.mark.parametrize("unsized", [True, False])
def test_the_start_of_a_users_own_network_is_told_by_an_arm_that_trains_it_unsized(unsized: bool) -> None:
    trials, _ = evaluation(trials=2)
    trials.loc[trials["arm"] == "fixed", "widths"] = pd.Series(
        [{"body": 8}] * 2, index=trials.index[trials["arm"] == "fixed"]
    )
    fixed = {"method": "fixed", "widths": {"uniform": False, "cut": 0.0} if unsized else {"low": 2.0, "high": 9.0}}
    spec = {"network": "nets.py:build", "arms": {"shrinknets": {"method": "shrinknets"}, "fixed": fixed}}
    assert starts(spec, trials) == ({"shrinknets": {"body": 8}} if unsized else {})
