"""Optuna draws what the arm says, a point of one's own comes first, and a resumed sweep draws the same points."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from studies import search
from studies.checks import SAMPLERS
from studies.plan import Plan
from tests.studies.sweeps import small_plan

KNOB = {"lambda": {"low": 1e-4, "high": 1e-2}}
WIDTHS = {"widths": {"low": 4, "high": 64}}


def fresh() -> optuna.Study:
    """An empty study."""
    return optuna.create_study(direction="maximize")


def drawn(plan: Plan, arm: str, study: optuna.Study, numbers: range, *, tell: bool = True) -> list[dict[str, Any]]:
    """The parameters of trials asked one after the other."""
    asked = []
    for number in numbers:
        trial = search.ask(plan, arm, study, number, queued=False)
        assert trial.number == number
        if tell:
            search.tell(study, number, 0.5 + number / 100)
        asked.append(trial.params)
    return asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_the_knob_and_nothing_else(sampler: str) -> None:
    plan = small_plan(trials=8, sampler=sampler, arms={"shrinknets": KNOB})
    points = drawn(plan, "shrinknets", fresh(), range(8))
    assert all(set(point) == {"lambda"} and 1e-4 <= point["lambda"] <= 1e-2 for point in points)
    assert len({point["lambda"] for point in points}) == 8


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_plan_draws_the_same_points(sampler: str) -> None:
    plan = small_plan(trials=14, sampler=sampler, arms={"shrinknets": KNOB})
    once = drawn(plan, "shrinknets", fresh(), range(14))
    assert drawn(plan, "shrinknets", fresh(), range(14)) == once
    other = small_plan(trials=14, sampler=sampler, seed=1, arms={"shrinknets": KNOB})
    assert (drawn(other, "shrinknets", fresh(), range(14)) == once) is (sampler == "grid")


def test_a_resumed_study_goes_on_with_the_points_it_would_have_drawn() -> None:
    for sampler in ("random", "qmc", "grid"):
        plan = small_plan(trials=6, sampler=sampler, arms={"shrinknets": KNOB})
        whole = drawn(plan, "shrinknets", fresh(), range(6))
        storage = optuna.storages.InMemoryStorage()
        first = optuna.create_study(storage=storage, study_name="s")
        again = drawn(plan, "shrinknets", first, range(3), tell=False)
        second = optuna.load_study(storage=storage, study_name="s")
        assert again + drawn(plan, "shrinknets", second, range(3, 6)) == whole


def test_a_row_that_was_asked_and_not_drawn_is_drawn_when_adopted() -> None:
    plan = small_plan(arms={"fixed": WIDTHS})
    (wanted,) = drawn(plan, "fixed", fresh(), range(1))
    study = fresh()
    study.sampler = search.sampler(plan, "fixed", 0)
    study.ask()
    (row,) = study.get_trials(states=(TrialState.RUNNING,))
    assert row.params == {}
    assert search.adopt(plan, "fixed", study, row).params == wanted
    (row,) = study.get_trials(states=(TrialState.RUNNING,))
    assert search.adopt(plan, "fixed", study, row).params == wanted


def test_points_of_ones_own_come_first_inside_the_range_or_not() -> None:
    plan = small_plan(trials=4, arms={"shrinknets": {**KNOB, "enqueue": [0.5, 1e-3]}})
    points = [point["lambda"] for point in drawn(plan, "shrinknets", fresh(), range(4))]
    assert points[:2] == [0.5, 1e-3]
    assert all(1e-4 <= point <= 1e-2 for point in points[2:])


def test_a_grid_is_even_in_the_logarithm_and_ends_at_the_ends() -> None:
    plan = small_plan(trials=4, sampler="grid", arms={"shrinknets": {**KNOB, "enqueue": [0.5]}})
    points = [point["lambda"] for point in drawn(plan, "shrinknets", fresh(), range(4))]
    assert points == pytest.approx([0.5, 1e-4, 1e-3, 1e-2])


def test_qmc_covers_the_range_more_evenly_than_chance() -> None:
    plan = small_plan(trials=8, sampler="qmc", arms={"shrinknets": KNOB})
    points = sorted(point["lambda"] for point in drawn(plan, "shrinknets", fresh(), range(8)))
    cells = [int(8 * (search.np.log10(point) + 4) / 2) for point in points]
    assert cells == list(range(8))


def test_a_baseline_draws_depth_and_the_widths_of_that_depth() -> None:
    arm = {**WIDTHS, "depth": {"low": 1, "high": 3}, "enqueue": [{"widths": [300, 100]}]}
    plan = small_plan(trials=12, arms={"fixed": arm})
    points = drawn(plan, "fixed", fresh(), range(12))
    assert points[0] == {"depth": 2, "width_dense1": 300, "width_dense2": 100}
    assert search.point(plan, "fixed", points[0]).widths == [300, 100]
    for point in points[1:]:
        assert len(point) == point["depth"] + 1
        assert all(4 <= width <= 64 for width in search.point(plan, "fixed", point).widths or [])
    assert {point["depth"] for point in points} == {1, 2, 3}


def test_fixed_l2_draws_its_weight_decay() -> None:
    plan = small_plan(arms={"fixed-l2": {**WIDTHS, "weight_decay": {"low": 1e-5, "high": 1e-2}}})
    (point,) = drawn(plan, "fixed-l2", fresh(), range(1))
    found = search.point(plan, "fixed-l2", point)
    assert found.knob is None
    assert found.weight_decay == point["weight_decay"]


def test_uniform_widths_reach_the_upper_half_as_often_as_the_lower() -> None:
    arms = {"fixed": {"widths": {"low": 1, "high": 100, "log": False}}, "log": {**WIDTHS, "method": "fixed"}}
    plan = small_plan(trials=100, arms=arms)
    even = [point["width_dense1"] > 50 for point in drawn(plan, "fixed", fresh(), range(100))]
    assert 35 <= sum(even) <= 65
    small = [point["width_dense1"] <= 16 for point in drawn(plan, "log", fresh(), range(100))]
    assert 35 <= sum(small) <= 65


def test_a_row_that_somebody_failed_in_the_dashboard_stays_failed() -> None:
    study = fresh()
    study.ask()
    study.tell(0, state=TrialState.FAIL)
    search.tell(study, 0, 0.9)
    assert study.trials[0].state == TrialState.FAIL
