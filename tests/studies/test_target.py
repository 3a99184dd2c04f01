"""Budgets that a search aims just under: when each is met, when it is hopeless, and what a sweep makes of that."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sizer.errors import InputError
from studies import query, selection, target
from studies.arms import Range
from studies.driver import Driver
from studies.plan import Plan
from studies.standing import standing
from studies.sweep import remaining, run
from studies.target import Aim, Sized, Target, aims
from tests.studies.benches import Bench
from tests.studies.sweeps import Seen, check_whole, epoch, small_plan

BOUNDS = Range(low=1e-4, high=1e-2)
ARMS = {"shrinknets": {"lambda": {"low": 1e-4, "high": 1e-2}}}


def aimed(**values: Any) -> Plan:
    return small_plan(**{"arms": ARMS, "trials": 9, "widths": [60], "target": {"params": [1000]}, **values})


def aim_of(*sized: tuple[float, int], budget: int = 1000) -> Aim:
    trials = [Sized(at, knob, size) for at, (knob, size) in enumerate(sized)]
    return aims(Target(params=[budget]), "lambda", BOUNDS, trials)[0]


def test_a_network_for_a_budget_is_at_most_a_tenth_smaller_and_none_larger() -> None:
    assert aim_of((1e-3, 1001), (2e-3, 899)).trial is None
    assert aim_of((1e-3, 900)).trial == Sized(0, 1e-3, 900)
    assert aim_of((1e-3, 900), (2e-3, 1000), (3e-3, 950)).trial == Sized(1, 2e-3, 1000)


def test_a_budget_beyond_an_end_of_the_range_is_hopeless() -> None:
    far = aim_of((1e-3, 5000), (1e-2, 2000))
    assert far.hopeless
    assert far.settled
    assert far.why == "lambda = 0.01, the end of its range, still gives 2,000: raise high or extend"
    assert far.nearest == Sized(1, 1e-2, 2000)
    assert not aim_of((1e-2, 1100)).hopeless, "it may be noise"
    assert aim_of((1e-2, 1100), (1e-2, 1090)).hopeless
    small = aim_of((1e-4, 500))
    assert small.hopeless
    assert small.why == "lambda = 0.0001, the end of its range, still gives 500: lower low or extend"


def test_what_is_between_is_no_end() -> None:
    assert aim_of().why == "no trial has ended"
    assert aim_of((1e-3, 1500), (2e-3, 700)) == Aim(1000, None, Sized(1, 2e-3, 700), "more trials may find one")
    noisy = aim_of((1e-3, 700), (2e-3, 1500))
    assert noisy.why == "sizes are too noisy to order: lambda = 0.002 gave more than 0.001"
    assert not noisy.settled


def size_of(knob: float) -> int:
    return max(1, round(60 * (knob / 1e-4) ** -0.5))


def trained(driver: Driver, width: int | None = None) -> dict[str, Any]:
    """The next trial, trained: its network shrinks to what its knob gives, the best epoch being the one before."""
    member = driver.next()
    assert member is not None
    last = width or size_of(member["knob"])
    driver.epoch(member["trial_id"], epoch(1, 0.9, 60))
    driver.epoch(member["trial_id"], epoch(2, 0.8, last))
    driver.end(member["trial_id"], "complete", "")
    return member


def test_an_arm_asks_for_no_more_trials_when_its_budgets_have_their_networks(bench: Bench) -> None:
    plan = aimed()
    driver = bench.start(plan)
    begun = 0
    while driver.left:
        trained(driver)
        begun += 1
    assert 1 < begun < 7
    (aim,) = driver.aims("shrinknets")
    assert aim.trial is not None
    assert 900 <= aim.trial.size <= 1000
    note = f"shrinknets: {begun} trials of 9 say all about its target"
    assert isinstance(driver.watch, Seen)
    assert (note,) in driver.watch.of("note")

    assert remaining(bench.database, plan) == 0
    assert (standing(bench.database, "small").state, standing(bench.database, "small").arms[0].planned) == (
        "done",
        begun,
    )
    again = bench.start(plan)
    assert again.next() is None
    spec, trials, history = (read(bench.database, "small") for read in (query.spec, query.trials, query.history))
    assert target.by_arm(spec, trials, history) == {"shrinknets": [aim]}

    more = aimed(target={"params": [1000, 2000]})
    assert remaining(bench.database, more) == 9 - begun
    driver = bench.start(more)
    while driver.left:
        trained(driver)
    assert [aim.settled for aim in driver.aims("shrinknets")] == [True, True]


def test_a_budget_that_no_trial_can_have_ends_an_arm(bench: Bench) -> None:
    driver = bench.start(aimed(target={"params": [100]}))
    begun = 0
    while driver.left:
        trained(driver)
        begun += 1
    assert begun < 9
    assert driver.aims("shrinknets")[0].hopeless


def test_a_range_may_be_extended(bench: Bench) -> None:
    driver = bench.start(aimed(target={"params": [310], "extend": 10.0}, trials=12))
    while driver.left:
        trained(driver)
    (aim,) = driver.aims("shrinknets")
    assert aim.trial is not None
    assert aim.trial.knob > 1e-2


def test_baselines_and_arms_with_samplers_of_their_own_do_not_aim(bench: Bench) -> None:
    fixed = {"widths": {"low": 4, "high": 16}}
    own = {**ARMS["shrinknets"], "method": "shrinknets", "sampler": "tpe"}
    plan = aimed(arms={**ARMS, "own": own, "fixed": fixed}, trials=3)
    assert [plan.draws_by(arm) for arm in plan.arms] == ["size", "tpe", "random"]
    driver = bench.start(plan)
    while driver.left:
        member = driver.next()
        assert member is not None
        driver.epoch(member["trial_id"], epoch(1, 0.9, 12))
        driver.end(member["trial_id"], "complete", "")
    counts = {arm.arm: arm.complete for arm in standing(bench.database, "small").arms}
    assert counts["own"] == counts["fixed"] == 3
    assert counts["shrinknets"] < 3


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"target": {}}, "target: must have params, flops or latency, one of them, got none"),
        ({"target": {"params": [9], "flops": [9]}}, "flops or latency, one of them, got params=[9], flops=[9]"),
        ({"target": {"latency": [0]}}, "target.latency.0: should be greater than 0, got 0"),
        ({"target": {"params": [0]}}, "target.params.0: should be greater than or equal to 1, got 0"),
        ({"target": {"params": [9], "extend": 0.5}}, "target.extend: should be greater than or equal to 1, got 0.5"),
        ({"arms": {"fixed": {"widths": {"low": 4, "high": 16}}}}, "target: no arm looks for sizes"),
        ({"sampler": "size", "target": None, "arms": {"fixed": {"widths": {"low": 4, "high": 16}}}},
         "size is for a knob; draw widths with"),
    ],
)  # fmt: skip
def test_targets_that_make_no_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        aimed(**values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ({"params": [4510]}, "target.params: 4,510 is no less than the network has before it is sized, 4,510"),
        ({"params": [100]}, "target.params: 100 is less than the smallest such network has, 160"),
        ({"flops": [10**9]}, "target.flops: 1,000,000,000 is no less than the network has before"),
    ],
)
def test_a_budget_outside_of_what_the_network_can_be_is_refused_before_anything_is_written(
    budget: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        run(aimed(target=budget), tmp_path / "x.db", watch=Seen())
    assert says in str(caught.value)
    assert not (tmp_path / "x.db").exists()


def test_a_latency_is_what_workers_say_and_chooses_networks(bench: Bench) -> None:
    plan = aimed(target={"latency": [0.2, 50.0]}, trials=5)
    driver = bench.start(plan)
    while driver.left:
        member = driver.next()
        assert member is not None
        assert member["timed"] == Target(latency=[0.2, 50.0]).model_dump()
        took, last = 0.4 * (member["knob"] / 1e-3) ** -0.5, size_of(member["knob"])
        for number, (accuracy, width) in enumerate([(0.9, 60), (0.7, last), (0.8, last)]):
            driver.epoch(member["trial_id"], epoch(number + 1, accuracy, width))
        driver.end(member["trial_id"], "complete", "", final_latency_ms=took)
    quick, slow = driver.aims("shrinknets")
    assert quick.trial is not None
    assert 0.18 <= quick.trial.size <= 0.2
    assert slow.why.endswith(" ms: lower low or extend")
    spec, trials, history = (read(bench.database, "small") for read in (query.spec, query.trials, query.history))
    assert target.by_arm(spec, trials, history) == {"shrinknets": [quick, slow]}

    row = selection.best(bench.database, "small", max_latency=0.2)
    quickest = trials.loc[trials["latency_ms"].idxmin()]
    assert (row["val_accuracy"], row["epoch"], row["trial_id"]) == (0.8, 3, quickest["trial_id"])
    assert quickest["latency_ms"] <= 0.2
    with pytest.raises(InputError, match=r"no network of small passes in 0.001 ms: the nearest is shrinknets trial"):
        selection.best(bench.database, "small", max_latency=0.001)


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("pack", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_workers_time_the_networks_that_they_have_trained(pack: int, tmp_path: Path) -> None:
    plan = aimed(epochs=2, batch_size=64, trials=2, target={"latency": [1e-6], "batch": 4})
    run(plan, tmp_path / "x.db", watch=Seen(), concurrency=1, pack=pack)
    took = query.trials(tmp_path / "x.db", "small")["latency_ms"]
    assert len(took) == 2
    assert took.between(1e-3, 1e3).all()


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_a_sweep_finds_networks_for_its_budgets(tmp_path: Path) -> None:
    arms = {"shrinknets": {"lambda": {"low": 1e-3, "high": 1e-1}}}
    plan = aimed(arms=arms, epochs=6, batch_size=64, trials=14, target={"params": [1500, 3000], "within": 0.2})
    outcome = run(plan, tmp_path / "x.db", watch=Seen(), concurrency=2)
    assert outcome.left == 0
    check_whole(tmp_path / "x.db", plan, sum(outcome.ended["shrinknets"].values()))
    spec, trials, history = (read(tmp_path / "x.db", "small") for read in (query.spec, query.trials, query.history))
    found = target.by_arm(spec, trials, history)["shrinknets"]
    sizes = [math.nan if aim.trial is None else aim.trial.size / aim.budget for aim in found]
    assert all(0.8 <= share <= 1 for share in sizes), (sizes, trials[["knob", "parameters"]])
    assert run(plan, tmp_path / "x.db", watch=Seen()).already_done
