"""Stages run in order: rates by grid, widths from another arm's mean, a knob for as many parameters; each in folds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizer import cost
from sizer.errors import InputError
from studies import query
from studies.arms import TRIES, Range
from studies.driver import Driver
from studies.plan import Plan
from studies.stages import Ended, nearest, next_knob, resolve
from studies.sweep import remaining
from tests.studies.benches import Bench
from tests.studies.sweeps import epoch, small_plan
from tests.studies.test_driver import train

ALPHA = {"low": 1e-6, "high": 1e-3}
STATIC = {"method": "fixed", "learning_rate": [2e-3, 1e-3]}
ARMS = {
    "dynamic": {"method": "auto-sizing", "alpha": ALPHA, "enqueue": [2e-5], "learning_rate": [1e-3, 4e-4, 1e-4]},
    "static-a": {**STATIC, "widths": {"mean_of": "dynamic"}},
    "static-b": {**STATIC, "widths": {"mean_of": "dynamic", "uniform": True}},
    "l21": {"method": "auto-sizing", "alpha": ALPHA, "match": "dynamic", "settings": {"penalty": "l2,1"}},
    "cut": {"method": "fixed", "widths": {"cut": 0.2}},
}


def das(**values: Any) -> Plan:
    """Table II of Dynamic auto-sizing in small: one point an arm, in three folds."""
    return small_plan(**{"trials": 1, "folds": 3, "widths": [30, 20], "epochs": 1, "arms": ARMS, **values})


def outcome(member: dict[str, Any]) -> dict[str, Any]:
    """What a network's size and accuracy would be: widths fall with the knob and differ between folds."""
    rate = member["learning_rate"]
    if member["knob"] is None:
        dense1, dense2 = member["widths"]
    else:
        size = round(40 * (2e-5 / member["knob"]) ** 0.3)
        dense1, dense2 = size + member["fold"], 2 * size + member["fold"]
    accuracy = 0.9 - abs(rate - 4e-4) * 100
    widths = {"dense1": dense1, "dense2": dense2}
    parameters = 65 * dense1 + (dense1 + 1) * dense2 + 11 * dense2 - dense2 + 10
    return {"accuracy": accuracy, "widths": widths, "parameters": parameters}


def run(bench: Bench, plan: Plan, *, restart: bool) -> list[dict[str, Any]]:
    """Trains all, one after the other; with `restart` by a new driver each."""
    members = []
    driver = bench.start(plan)
    while (member := driver.next()) is not None:
        members.append(member)
        train(driver, member, [epoch(1, **outcome(member))])
        driver.end(member["trial_id"], "complete", "")
        if restart:
            driver = bench.start(plan)
    assert driver.left == 0
    return members


def test_every_stage_and_fold_is_trained_once_and_in_order(bench: Bench) -> None:
    members = run(bench, das(), restart=False)
    assert Counter(member["arm"] for member in members) == {
        "dynamic.learning-rate": 3, "dynamic": 3, "static-a.learning-rate": 2, "static-a": 3,
        "static-b.learning-rate": 2, "static-b": 3, "l21.alpha": TRIES, "l21": 3, "cut": 3,
    }  # fmt: skip
    first = {name: next(at for at, m in enumerate(members) if m["arm"] == name) for name in ("static-a", "l21")}
    last = {name: max(at for at, m in enumerate(members) if m["arm"] == name) for name in ("dynamic", "l21.alpha")}
    assert last["dynamic"] < min(first.values())
    assert last["l21.alpha"] < first["l21"]
    for arm in das().arms:
        own = [member for member in members if member["arm"] == arm]
        assert [member["fold"] for member in own] == [0, 1, 2]
        assert len({(member["knob"], str(member["widths"]), member["learning_rate"]) for member in own}) == 1
    assert all(member["fold"] == 0 and member["seed"] == 0 for member in members if "." in member["arm"])


def test_an_arm_alone_has_the_trials_that_it_has_among_all(bench: Bench) -> None:
    plan = das()
    alone = {member["arm"] for member in run(bench, plan.only(["static-b"]), restart=False)}
    assert alone == {"dynamic.learning-rate", "dynamic", "static-b.learning-rate", "static-b"}
    assert remaining(bench.database, plan.only(["static-b"])) == 0
    assert remaining(bench.database, plan) > 0
    rest = {member["arm"] for member in run(bench, plan, restart=False)}
    assert rest == set(plan.every) - alone, "the whole plan goes on with the others"
    with pytest.raises(InputError, match="unknown arm of small 'static-c'; there are: static-a, static-b"):
        plan.only(["static-c"])


def test_what_a_stage_finds_is_what_the_arm_trains_with(bench: Bench) -> None:
    members = {member["arm"]: member for member in run(bench, das(), restart=False)}
    assert members["dynamic"]["knob"] == 2e-5
    assert members["dynamic"]["learning_rate"] == 4e-4
    assert members["static-a"]["widths"] == [41, 81]  # the mean of 40, 41, 42 and of 80, 81, 82
    assert members["static-a"]["learning_rate"] == 1e-3
    assert members["cut"]["widths"] == [24, 16]
    assert members["l21"]["learning_rate"] == 1e-3
    target = outcome({**members["dynamic"], "fold": 1})["parameters"]
    assert outcome(members["l21"] | {"fold": 0})["parameters"] == pytest.approx(target, rel=0.1)


def test_a_knob_that_empties_a_layer_is_too_large_whatever_the_network_was_before(bench: Bench) -> None:
    driver = bench.start(das())
    ends = {}
    while (member := driver.next()) is not None:
        found = outcome(member)
        collapses = member["arm"].startswith("l21") and member["knob"] > 3e-5
        if collapses:
            found |= {"widths": {"dense1": 300, "dense2": 300}, "parameters": 113_000}
        train(driver, member, [epoch(1, **found)])
        driver.end(member["trial_id"], "collapsed" if collapses else "complete", "")
        ends.setdefault(member["arm"], []).append((member["knob"], found["parameters"], collapses))
    assert ends["l21.alpha"][0][2], "the search begins beyond"
    wanted = np.mean([parameters for _, parameters, _ in ends["dynamic"]])
    assert not any(collapsed for *_, collapsed in ends["l21"])
    assert np.mean([parameters for _, parameters, _ in ends["l21"]]) == pytest.approx(wanted, rel=0.1)


def test_a_new_driver_after_every_trial_trains_the_same(tmp_path: Path) -> None:
    wanted = ("arm", "number", "knob", "widths", "learning_rate", "fold", "seed")
    found = []
    for restart in (False, True):
        (tmp_path / str(restart)).mkdir()
        made = Bench(str(tmp_path / str(restart) / "x.db"))
        found.append([{key: member[key] for key in wanted} for member in run(made, das(), restart=restart)])
    assert found[0] == found[1]


def test_a_trial_in_flight_holds_back_what_waits_for_it(bench: Bench) -> None:
    driver = bench.start(das(arms={key: ARMS[key] for key in ("dynamic", "static-a")}))
    rates = [driver.next() for _ in range(3)]
    assert [member and member["arm"] for member in rates] == ["dynamic.learning-rate"] * 3
    assert driver.next() is None
    assert driver.left == 3 + 2 + 3


def test_an_arm_whose_source_gave_no_network_says_so(bench: Bench) -> None:
    driver = bench.start(das(arms={key: ARMS[key] for key in ("dynamic", "static-a")}))
    with pytest.raises(InputError, match=r"dynamic takes something from dynamic.learning-rate, of which no trial gave"):
        fail_all(driver)


def fail_all(driver: Driver) -> None:
    while (member := driver.next()) is not None:
        driver.end(member["trial_id"], "diverged", "the loss became nan")


def test_folds_of_a_drawn_point_have_its_parameters(bench: Bench) -> None:
    arms = {"shrinknets": {"lambda": {"low": 1e-3, "high": 1e-2}}, "fixed": {"widths": {"low": 4, "high": 64}}}
    members = run(bench, das(trials=2, arms=arms), restart=False)
    for arm in arms:
        drawn = [(member["knob"], member["widths"]) for member in members if member["arm"] == arm]
        assert drawn[0] == drawn[1] == drawn[2] != drawn[3] == drawn[4] == drawn[5]
    trials = query.trials(bench.path, "small")
    assert list(trials[trials["arm"] == "fixed"]["fold"]) == [0, 1, 2, 0, 1, 2]
    assert list(trials[trials["arm"] == "fixed"]["point"]) == [0, 0, 0, 1, 1, 1]


def test_static_b_has_uniform_filters_and_as_many_parameters() -> None:
    plan = small_plan(network="das-conv", widths=[9, 9, 9, 9, 9], folds=2, trials=1, arms=ARMS)
    shape = ((1, 28, 28), 10)
    found = dict(zip(plan.layers(), [19, 14, 18, 34, 93], strict=True))  # the paper's Table I, MNIST
    ended = [Ended(n, {}, epoch(1, widths=found)) for n in (0, 1)]
    rates = [Ended(0, {"learning_rate": 1e-3}, epoch(1))]

    def trials(arm: str) -> list[Ended]:
        return rates if arm.endswith("learning-rate") else ended

    a, b = (resolve(plan, arm, trials, shape).widths for arm in ("static-a", "static-b"))
    assert a == [19, 14, 18, 34, 93]
    assert b is not None
    assert len(set(b[:4])) == 1
    assert b[4] == 93
    sizes = [cost.parameters(plan.build(*shape, widths)) for widths in (a, b)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)


@settings(max_examples=200)
@given(
    power=st.floats(0.2, 1.5), at=st.floats(1e-5, 1e-3), noise=st.lists(st.floats(-0.02, 0.02), min_size=9, max_size=9)
)
def test_the_knob_for_a_size_is_found_in_a_few_tries(power: float, at: float, noise: list[float]) -> None:
    tried: list[tuple[float, float]] = []
    for error in noise[:TRIES]:
        knob = next_knob(tried, 1e5, Range(low=1e-6, high=1e-2), 1e-4)
        assert 1e-6 <= knob <= 1e-2
        tried.append((knob, 1e5 * (at / knob) ** power * (1 + error)))
    best = dict(tried)[nearest(tried, 1e5)]
    assert abs(best / 1e5 - 1) < 0.2
