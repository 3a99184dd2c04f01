"""Best and front out of the kept rows are what all epochs would give; the old, slow way stands here to compare with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sizer
from sizer.errors import InputError
from studies import query, search, selection, standing, tables, weights
from studies.database import Database, locate
from studies.plan import Plan
from tests.studies.benches import Bench
from tests.studies.filled import Trial, fill
from tests.studies.sweeps import epoch, rows, small_plan
from tests.studies.test_driver import taken, train

LIMITS = (None, 100, 300, 500)
figures = st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(1, 6), st.integers(1, 6))
ends = st.sampled_from([("COMPLETE", "complete"), ("COMPLETE", "collapsed"), ("FAIL", "diverged"), ("RUNNING", "")])


@st.composite
def trials(draw: st.DrawFn) -> list[Trial]:
    """Some trials of two arms; the costs are drawn apart, and few, so that many are equal."""
    drawn = []
    for epochs in draw(st.lists(st.lists(figures, min_size=1, max_size=3), min_size=1, max_size=8)):
        state, status = draw(ends)
        listed = [
            epoch(at, accuracy, parameters=100 * size, flops=100 * flops)
            for at, (accuracy, size, flops) in enumerate(epochs, 1)
        ]
        drawn.append(Trial(draw(st.sampled_from(["shrinknets", "fixed"])), listed, state, status, "because"))
    return drawn


names = (f"plan-{number}" for number in itertools.count())
quickly = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quickly
@given(trials())
def test_best_front_and_standing_are_what_all_rows_give(database: Database, given: list[Trial]) -> None:
    plan = small_plan(name=next(names), trials=10)
    fill(database, plan, given)
    for arm in (None, "shrinknets", "fixed"):
        usable = usable_rows(database, plan, arm)
        if usable.empty:
            with pytest.raises(InputError, match="is complete yet"):
                selection.front(database, plan.name, arm)
            continue
        pd.testing.assert_frame_equal(selection.front(database, plan.name, arm), slow_front(usable))
        if arm is None:
            offered_is_chosen(database, plan)
        for limits in itertools.product(LIMITS, LIMITS):
            assert found(database, plan, arm, limits) == slow_best(usable, limits)
    counts = {arm.arm: arm for arm in standing.standing(database, plan.name).arms}
    told, history = query.trials(database, plan.name), query.history(database, plan.name)
    for arm, counted in counts.items():
        states = told[told["arm"] == arm]["state"].value_counts()
        assert (counted.complete, counted.failed, counted.running) == tuple(
            states.get(state, 0) for state in ("COMPLETE", "FAIL", "RUNNING")
        )
        assert counted.collapsed == ((told["arm"] == arm) & (told["status"] == "collapsed")).sum()
        assert counted.epochs == (history["arm"] == arm).sum()


def offered_is_chosen(database: Database, plan: Plan) -> None:
    """The first of the offers that fits a limit is what `best` chooses under it; a latency is one of the limits."""
    kept = selection.front(database, plan.name)
    with database.engine.begin() as connection:
        for trial, size in zip(kept["trial_id"], kept["parameters"], strict=True):
            for key, value in (("final_latency_ms", size / 7), ("final_parameters", size)):
                row = {"trial_id": int(trial), "key": key, "value_json": str(value)}
                said = tables.trial_user_attributes
                connection.execute(said.delete().where(said.c.trial_id == row["trial_id"], said.c.key == key))
                connection.execute(said.insert().values(row))
    offers = selection.offers(database, plan.name)
    for limit, column in (("max_params", "parameters"), ("max_flops", "flops"), ("max_latency", "latency_ms")):
        for most in offers[column].dropna():
            first = offers[offers[column] <= most].iloc[0]
            best = selection.best(database, plan.name, **{limit: most})
            assert (first["trial_id"], first["epoch"]) == (best["trial_id"], best["epoch"])


def found(database: Database, plan: Plan, arm: str | None, limits: tuple[int | None, ...]) -> tuple[Any, ...] | str:
    """What `best` gives: the whole row, or the line that names the nearest."""
    try:
        row = selection.best(database, plan.name, arm, *limits)
    except InputError as error:
        return str(error).partition("the nearest is ")[2]
    return tuple(map(str, row))


def usable_rows(database: Database, plan: Plan, arm: str | None) -> pd.DataFrame:
    """All epochs of complete trials, with what their trials say."""
    told = query.trials(database, plan.name)
    told = told[(told["state"] == "COMPLETE") & ((told["arm"] == arm) if arm else True)]
    columns = ["trial_id", "method", "knob_name", "seed", "status", "fold", "learning_rate"]
    usable = query.history(database, plan.name).merge(told[columns], on="trial_id").reset_index(drop=True)
    usable["units"] = [sum(widths.values()) for widths in usable["widths"]]
    return usable


def slow_best(usable: pd.DataFrame, limits: tuple[int | None, ...]) -> tuple[Any, ...] | str:
    both = [(column, limit) for column, limit in zip(("parameters", "flops"), limits, strict=True) if limit]
    fits = usable
    for column, limit in both:
        fits = fits[fits[column] <= limit]
    if not fits.empty:
        return tuple(map(str, first(fits)))
    excess = pd.concat([usable[column] / limit for column, limit in both], axis=1).max(axis=1)
    near = first(usable[excess == excess.min()])
    return (
        f"{near.arm} trial {near.number}, epoch {near.epoch}, with {near.parameters:,} parameters,"
        f" {near.flops:,} FLOPs, validation {near.val_accuracy:.4f}"
    )


def first(usable: pd.DataFrame) -> Any:
    return ordered(usable).iloc[0]


def ordered(usable: pd.DataFrame) -> pd.DataFrame:
    order = ["val_accuracy", "parameters", "flops", "trial_id", "epoch"]
    return usable.sort_values(order, ascending=[False, True, True, True, True])


def slow_front(usable: pd.DataFrame) -> pd.DataFrame:
    usable = ordered(usable)
    points = [weights.Point(*point) for point in zip(range(len(usable)), usable["val_accuracy"], usable["parameters"],
                                                     usable["flops"], strict=True)]  # fmt: skip
    chosen = [point.epoch for point in sizer.front(points)]
    return usable.iloc[chosen].sort_values(["parameters", "flops"]).reset_index(drop=True)


def test_the_filled_rows_are_those_of_a_driver(bench: Bench, tmp_path: Path) -> None:
    """What `fill` writes is what the driver writes, but for dates, files and drawn parameters."""
    plan = small_plan(trials=1)
    epochs = [epoch(1, 0.5, 8), epoch(2, 0.7, 6)]
    filled = locate(tmp_path / "filled.db")[0]
    filled.create()
    fill(filled, plan, [Trial("shrinknets", epochs), Trial("fixed", epochs[:1], "FAIL", "diverged", "because")])
    driver = bench.start(plan)
    for ran, status, reason in ((epochs, "complete", ""), (epochs[:1], "diverged", "because")):
        member = taken(driver)
        train(driver, member, ran)
        driver.end(member["trial_id"], status, reason, device="cpu")
    for asked in (
        "select trial_id, number, study_id, state from trials order by trial_id",
        "select trial_id, param_name, distribution_json from trial_params order by trial_id, param_name",
        "select trial_id, objective, value, value_type from trial_values",
        "select trial_id, step, intermediate_value, intermediate_value_type from trial_intermediate_values"
        " order by trial_id, step",
        "select trial_id, key, value_json from trial_user_attributes order by trial_id, key",
        "select study_id, key, value_json from study_user_attributes order by study_id, key",
        "select * from sizer_history order by trial_id, epoch",
        "select * from sizer_architectures order by trial_id, position",
        "select trial_id, epoch, study_id from sizer_weights order by trial_id, epoch",
    ):
        assert rows(tmp_path / "filled.db", asked) == bench.rows(asked)
    filled.close()


def test_the_best_is_known_from_the_moment_that_its_trial_is_complete(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver killed after telling and before it looked at the weights leaves nothing out."""
    driver = bench.start(small_plan())
    member = taken(driver)
    train(driver, member, [epoch(1, 0.5), epoch(2, 0.9)])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        driver.end(member["trial_id"], "complete", "")
    assert selection.best(bench.path, "small").epoch == 2
    monkeypatch.undo()
    bench.start(small_plan())
    assert [file for (file,) in bench.rows("select artifact_id from sizer_weights")] != [None]


def test_a_trial_that_somebody_failed_meanwhile_beats_no_other(bench: Bench) -> None:
    driver = bench.start(small_plan())
    poor, good = taken(driver), taken(driver)
    train(driver, poor, [epoch(1, 0.5, 8)])
    driver.end(poor["trial_id"], "complete", "")
    train(driver, good, [epoch(1, 0.9, 8)])
    study = optuna.load_study(storage=bench.database.storage, study_name="small/fixed")
    search.tell(study, 0, None)  # as the dashboard's button does
    train(driver, good, [epoch(2, 0.95, 8)])
    driver.end(good["trial_id"], "complete", "")
    assert selection.best(bench.path, "small").val_accuracy == 0.5
    assert bench.rows("select trial_id from sizer_weights") == [(poor["trial_id"],)]
    assert driver.watch.of("trial")[-1][:3] == ("fixed", "0", "FAIL")  # type: ignore[attr-defined]


def test_under_both_limits_at_once_the_weights_of_the_best_are_there(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=1, arms={"fixed": {"widths": {"low": 4, "high": 16}}}))
    member = taken(driver)
    few_flops = epoch(1, 0.9, parameters=500, flops=100)
    few_parameters = epoch(2, 0.8, parameters=100, flops=500)
    both = epoch(3, 0.7, parameters=200, flops=200)
    poor = epoch(4, 0.6, parameters=300, flops=300)
    train(driver, member, [few_flops, few_parameters, both, poor])
    driver.end(member["trial_id"], "complete", "")
    row = selection.best(bench.path, "small", max_params=400, max_flops=400)
    assert row.epoch == 3
    selection.architecture(bench.path, "small", row)
    assert bench.rows("select epoch from sizer_weights order by epoch") == [(1,), (2,), (3,)]


def test_one_epoch_of_a_trial_is_given_as_best_gives_it(bench: Bench) -> None:
    driver = bench.start(small_plan())
    member = taken(driver)
    train(driver, member, [epoch(1, 0.5), epoch(2, 0.9), epoch(3, 0.1)])
    driver.end(member["trial_id"], "complete", "")
    taken(driver)
    best = selection.best(bench.path, "small")
    assert tuple(map(str, selection.epoch(bench.path, "small", member["trial_id"], 2))) == tuple(map(str, best))
    assert selection.epoch(bench.path, "small", member["trial_id"], 3).val_accuracy == 0.1
    with pytest.raises(InputError, match="unknown epoch of trial 1 '4'"):
        selection.epoch(bench.path, "small", member["trial_id"], 4)
    with pytest.raises(InputError, match="small has no complete trial 2"):
        selection.epoch(bench.path, "small", 2, 1)


def test_the_latest_trials_that_failed_are_named(database: Database) -> None:
    plan = small_plan(trials=40)
    bad = [("FAIL", "diverged", "the loss became nan"), ("COMPLETE", "collapsed", "dense1 would have lost"),
           ("COMPLETE", "complete", "")]  # fmt: skip
    fill(database, plan, [Trial("fixed", [epoch(1)], *bad[at % 3]) for at in range(39)])
    stands = standing.standing(database, "small")
    assert len(stands.unusual) == standing.LATEST
    assert stands.unusual[-1] == standing.Unusual("fixed", 37, "collapsed", "dense1 would have lost")
    assert stands.unusual[-2] == standing.Unusual("fixed", 36, "diverged", "the loss became nan")
    (fixed,) = (arm for arm in stands.arms if arm.arm == "fixed")
    assert (fixed.complete, fixed.collapsed, fixed.failed, fixed.waiting, fixed.epochs) == (26, 13, 13, 1, 39)
