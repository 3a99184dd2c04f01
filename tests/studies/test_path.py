"""A path: trials that are one walk through the knob, each from where the one before was."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import sizer
from sizer import networks
from sizer.errors import InputError
from sizer.methods import create
from sizer.training import STATE
from studies import attempts, query, selection, target
from studies.driver import Driver
from studies.path import Sized
from studies.plan import Plan
from studies.sweep import remaining, run
from tests.studies.benches import Bench
from tests.studies.driven import sweep, workers_of
from tests.studies.sweeps import Seen, epoch, rows, small_plan

RANGE = {"low": 1e-3, "high": 1e-1}
SCHEDULE = {"name": "path", "each": 2, "settle": 1}
VALUES: dict[str, Any] = {
    "arms": {"shrinknets": {"lambda": RANGE}}, "schedule": SCHEDULE, "epochs": 3, "trials": 3, "widths": [40],
    "batch_size": 64,
}  # fmt: skip


def walk(**values: Any) -> Plan:
    return small_plan(**{**VALUES, **values})


def trained(driver: Driver, status: str = "complete", *, hands_over: bool = True) -> dict[str, Any]:
    """The next step, trained; as a worker would, it leaves its state and the weights of its last epoch."""
    member = driver.next()
    assert member is not None
    assert driver.next() is None, "steps follow one another"
    name = f"attempt-1-{member['number']}"
    folder = Path(member["files"]) / member["run"] / name
    folder.mkdir()
    for at in range(1, member["epochs"] + 1):
        driver.epoch(member["trial_id"], epoch(at, 0.5 + at / 100))
    for file in [f"epoch-{member['epochs']}.safetensors", *([attempts.HANDOVER] if hands_over else [])]:
        (folder / file).write_text(f"{file} of {member['number']}")
    driver.end(member["trial_id"], status, "", attempt=name)
    return member


def runs(driver: Driver) -> list[str]:
    return driver.files.names("runs")


def test_each_step_begins_with_what_the_one_before_has_left(bench: Bench) -> None:
    driver = bench.start(walk())
    first = trained(driver)
    assert (first["knob"], first["start"], first["epochs"], first["settle"]) == (pytest.approx(1e-3), None, 4, 1)
    second = trained(driver)
    assert second["knob"] == pytest.approx(1e-2)
    assert second["start"] == "runs/small+shrinknets-0/attempt-1-0/handover.safetensors"
    assert (second["epochs"], second["settle"]) == (3, 1)
    assert runs(driver) == ["small+shrinknets-1"], "the one before is not needed any more"
    third = trained(driver)
    assert third["start"] == "runs/small+shrinknets-1/attempt-1-1/handover.safetensors"
    assert driver.left == 0
    assert runs(driver) == []
    assert remaining(bench.database, walk()) == 0


def test_a_new_driver_goes_on_from_the_last_step(bench: Bench) -> None:
    trained(bench.start(walk()))
    driver = bench.start(walk())
    assert runs(driver) == ["small+shrinknets-0"]
    member = driver.next()
    assert member is not None
    assert member["start"] == "runs/small+shrinknets-0/attempt-1-0/handover.safetensors"
    again = bench.start(walk()).next()
    assert again is not None
    assert (again["number"], again["start"]) == (1, member["start"]), "a step that was cut off begins there again"


def test_an_arm_alone_leaves_alone_what_others_have_begun(bench: Bench) -> None:
    plan = walk(arms={**VALUES["arms"], "fixed": {"widths": {"low": 4, "high": 16}}})
    trained(bench.start(plan.only(["shrinknets"])))
    begun = bench.start(plan.only(["shrinknets"])).next()
    assert begun is not None
    alone = bench.start(plan.only(["fixed"]))
    seen = []
    while (member := alone.next()) is not None:
        seen.append(member["arm"])
        alone.epoch(member["trial_id"], epoch(1))
        alone.end(member["trial_id"], "complete", "")
    assert seen == ["fixed"] * 3
    assert remaining(bench.database, plan.only(["fixed"])) == 0
    again = bench.start(plan).next()
    assert again is not None
    assert (again["arm"], again["number"]) == ("shrinknets", 1)
    assert again["start"] == "runs/small+shrinknets-0/attempt-1-0/handover.safetensors"


def test_after_a_step_that_failed_the_next_begins_where_that_one_did(bench: Bench) -> None:
    driver = bench.start(walk(trials=5))
    trained(driver)
    trained(driver, "diverged")
    assert trained(driver, hands_over=False)["start"] == "runs/small+shrinknets-0/attempt-1-0/handover.safetensors"
    assert trained(driver)["start"] == "runs/small+shrinknets-0/attempt-1-0/handover.safetensors"
    assert trained(driver)["start"] == "runs/small+shrinknets-3/attempt-1-3/handover.safetensors"
    assert runs(driver) == []


def test_where_a_smaller_knob_lets_grow_the_path_goes_down(bench: Bench) -> None:
    driver = bench.start(walk(arms={"auto-sizing": {"alpha": {"low": 1e-5, "high": 1e-3}}}))
    assert [trained(driver)["knob"] for _ in range(3)] == pytest.approx([1e-3, 1e-4, 1e-5])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"schedule": "walk"}, "schedule.name"),
        ({"schedule": {"name": "path", "each": 0}}, "schedule.each: should be greater than or equal to 1, got 0"),
        ({"schedule": 3}, 'schedule: must be "path", or { name = "path", each = 2, settle = 1 }, got 3'),
        ({"trials": 1}, "trials: a path has 2 steps or more, got 1"),
        ({"folds": 2}, "arms.shrinknets.schedule: a path is one run on one part of the data, so leave out folds"),
        (
            {"target": {"latency": [0.5]}},
            "arms.shrinknets.schedule: a path comes down to params or flops, so leave out",
        ),
        (
            {"target": {"params": [500]}, "arms": {"auto-sizing": {}}},
            "arms.auto-sizing.schedule: a path comes down to params or flops, so leave out a latency, and methods that",
        ),
        ({"schedule": {"name": "path", "factor": 1}}, "schedule.factor: should be greater than 1, got 1"),
        ({"arms": {"shrinknets": {"lambda": RANGE, "sampler": "tpe"}}}, "arms.shrinknets.sampler: the steps of a path"),
        ({"arms": {"shrinknets": {"lambda": RANGE, "enqueue": [1e-3]}}}, "arms.shrinknets.enqueue: the steps of a"),
        ({"arms": {"activity": {}}, "epochs": 9}, "arms.activity.schedule.each: activity sizes nothing in 2 epochs"),
    ],
)
def test_paths_that_make_no_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        walk(**values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_steps_are_another_path(bench: Bench) -> None:
    trained(bench.start(walk()))
    with pytest.raises(InputError, match=r"trials: was 3, now 4 \(a path has its points from the start\)"):
        remaining(bench.database, walk(trials=4))


AIM = {"target": {"params": [2500, 1500]}, "trials": 20, "schedule": {**SCHEDULE, "tune": 4}}


def stepped(driver: Driver, width: int) -> dict[str, Any]:
    """The next trial, trained: its network ends with so many units; a step ends where it is small enough."""
    member = driver.next()
    assert member is not None
    name = f"attempt-1-{member['number']}"
    folder = Path(member["files"]) / member["run"] / name
    folder.mkdir()
    for at in range(1, member["epochs"] + 1):
        driver.epoch(member["trial_id"], epoch(at, 0.5 + at / 100, width))
    if member["hands_over"]:
        (folder / attempts.HANDOVER).write_text(str(member["number"]))
    driver.end(member["trial_id"], "complete", "", attempt=name)
    return member


def test_a_path_comes_down_to_budgets_and_tunes_what_is_within_them(bench: Bench) -> None:
    plan = walk(**AIM)
    driver = bench.start(plan)
    first = stepped(driver, 40)
    assert (first["knob"], first["epochs"], first["settle"]) == (1e-3, 4, 1)
    assert first["limit"] == {"max_params": 2500}
    leap = stepped(driver, 39)
    assert leap["knob"] == pytest.approx(1e-3 * 1.5**3), "hardly anything went"
    assert stepped(driver, 34)["knob"] == pytest.approx(leap["knob"] * 1.5**3)
    near = stepped(driver, 33)
    assert near["knob"] == pytest.approx(leap["knob"] * 1.5**4)
    assert (near["epochs"], near["settle"], near["hands_over"]) == (3, 1, True)

    driver = bench.start(plan)
    tuned = stepped(driver, 33)
    assert (tuned["knob"], tuned["epochs"], tuned["settle"], tuned["limit"]) == (near["knob"], 4, 4, {})
    assert not tuned["hands_over"]
    further = driver.next()
    assert further is not None
    assert further["limit"] == {"max_params": 1500}
    assert tuned["start"] == further["start"] == f"{near['run']}/attempt-1-3/handover.safetensors"
    assert driver.left == 14

    driver = bench.start(plan)
    assert stepped(driver, 19)["number"] == further["number"], "a step that was cut off begins there again"
    assert further["knob"] == pytest.approx(near["knob"] * 1.5), "however little went"
    assert stepped(driver, 19)["settle"] == 4
    assert driver.left == remaining(bench.database, plan) == 0
    assert runs(driver) == []
    assert isinstance(driver.watch, Seen)
    assert ("shrinknets: 7 trials of 20 say all about its target",) in driver.watch.of("note")
    small, large = driver.aims("shrinknets")
    assert (small.trial, large.trial) == (Sized(6, small.trial.knob, 1435, 5), Sized(4, near["knob"], 2485, 3))
    spec, trials, history = (read(bench.database, "small") for read in (query.spec, query.trials, query.history))
    assert target.by_arm(spec, trials, history) == {"shrinknets": [small, large]}
    assert list(trials["tunes"].dropna()) == [3, 5]

    with pytest.raises(InputError, match=r"target: was 1,500, 2,500, now 1,000 \(a path has gone by its budgets\)"):
        remaining(bench.database, walk(**{**AIM, "target": {"params": [1000]}}))


def test_a_path_that_shrinks_no_more_at_the_end_of_its_range_says_so(bench: Bench) -> None:
    driver = bench.start(walk(**AIM))
    widths = iter([40, 39, 38, 37, 36, 35, *[35] * 9])
    while driver.left:
        stepped(driver, next(widths))
    small, large = driver.aims("shrinknets")
    assert large.hopeless
    assert large.why == "lambda = 0.1, the end of its range, still gives 2,635: raise high or extend"
    assert small.nearest == large.nearest


def collapsed(driver: Driver) -> dict[str, Any]:
    """The next step, whose layer came to its last unit: it hands nothing over."""
    member = driver.next()
    assert member is not None
    driver.epoch(member["trial_id"], epoch(1, 0.5, 38))
    driver.end(member["trial_id"], "collapsed", "dense1 would have lost the last unit in epoch 1", attempt="")
    return member


def test_a_step_whose_layer_came_to_its_last_unit_is_done_again_half_as_far(bench: Bench) -> None:
    driver = bench.start(walk(**AIM))
    first = stepped(driver, 40)
    far = collapsed(driver)
    again = stepped(driver, 35)
    assert again["knob"] == pytest.approx((first["knob"] * far["knob"]) ** 0.5)
    assert again["start"] == far["start"] == f"{first['run']}/attempt-1-0/handover.safetensors"
    assert stepped(driver, 33)["knob"] == pytest.approx(again["knob"] * 1.5)
    assert stepped(driver, 33)["settle"] == 4, "it goes on from there"


def test_a_path_ends_where_layers_come_to_their_last_unit_however_small_the_step(bench: Bench) -> None:
    driver = bench.start(walk(**AIM))
    stepped(driver, 40)
    knobs = [collapsed(driver)["knob"] for _ in range(4)]
    assert knobs == sorted(knobs, reverse=True)
    assert driver.left == 0
    small, large = driver.aims("shrinknets")
    assert large.why == "a layer was at its last unit with 2,860 in all: start from one with more units"
    assert (small.why, small.hopeless) == (large.why, True)
    spec, trials, history = (read(bench.database, "small") for read in (query.spec, query.trials, query.history))
    assert target.by_arm(spec, trials, history) == {"shrinknets": [small, large]}


@pytest.mark.parametrize(("budget", "width"), [(2500, 29), (500, 17)], ids=["undercut", "half-gone"])
def test_a_step_that_goes_too_far_is_done_again_from_where_it_began(bench: Bench, budget: int, width: int) -> None:
    plan = walk(**{**AIM, "target": {"params": [budget]}})
    driver = bench.start(plan)
    stepped(driver, 40)
    good = stepped(driver, 36)
    far = stepped(driver, width)
    assert far["start"] == f"{good['run']}/attempt-1-1/handover.safetensors"
    assert runs(driver) == ["small+shrinknets-1"]

    driver = bench.start(plan)
    again = stepped(driver, 35)
    assert again["start"] == far["start"]
    assert again["knob"] == pytest.approx((good["knob"] * far["knob"]) ** 0.5)
    following = stepped(driver, 34)
    assert following["start"] == f"{again['run']}/attempt-1-3/handover.safetensors"
    assert following["knob"] == pytest.approx(again["knob"] * 1.5), "it leaps no more"


def test_units_that_go_at_once_may_leave_a_budget_without_its_network(bench: Bench) -> None:
    driver = bench.start(walk(**{**AIM, "target": {"params": [2500]}}))
    for width in (40, 36, 20, 21, 22, 23, 23):
        stepped(driver, width)
    assert driver.left == 0
    (aim,) = driver.aims("shrinknets")
    assert (aim.why, aim.hopeless) == ("several units went at once, down to 1,735", True)
    assert aim.nearest is not None
    assert (aim.nearest.number, aim.nearest.size) == (1, 2710)


def by_hand(plan: Plan, place: Path) -> list[float]:
    """The losses of a path that is walked here, by ``sizer.fit``."""
    data = plan.read_data()
    losses: list[float] = []
    for number in range(plan.trials):
        torch.manual_seed(number)
        module = networks.build("mlp", data.input_shape, data.outputs, [40])
        epochs, settle = plan.epochs_of("shrinknets", number)
        folder = place / str(number)

        def kept(done: sizer.Epoch, folder: Path = folder, last: int = epochs - settle) -> None:
            if done.epoch == last:
                shutil.copyfile(folder / STATE, folder / "next")

        knob = 1e-3 * 10.0**number
        fitted = sizer.fit(
            module, data, create("shrinknets", knob), epochs=epochs, settle=settle, batch_size=64, seed=number,
            folder=folder, on_epoch=kept, start=place / str(number - 1) / "next" if number else None,
        )  # fmt: skip
        losses += [done.val_loss for done in fitted.history]
    return losses


TOLD = "select val_loss from sizer_history order by trial_id, epoch"


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_a_path_through_workers_is_the_one_that_is_walked_by_hand_to_the_bit(tmp_path: Path) -> None:
    plan = walk()
    (tmp_path / "hand").mkdir()
    assert run(plan, tmp_path / "x.db", watch=Seen()).ended == {"shrinknets": {"complete": 3}}
    assert [loss for (loss,) in rows(tmp_path / "x.db", TOLD)] == by_hand(plan, tmp_path / "hand")
    sizes = query.trials(tmp_path / "x.db", "small")["parameters"]
    assert list(sizes) == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    row = selection.best(tmp_path / "x.db", "small", max_params=int(sizes.min()))
    assert selection.architecture(tmp_path / "x.db", "small", row)[1].is_file()


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_a_path_through_workers_comes_down_to_its_budget(tmp_path: Path) -> None:
    plan = walk(target={"params": [1500]}, trials=30, schedule={"name": "path", "each": 2, "settle": 0, "tune": 4})
    run(plan, tmp_path / "x.db", watch=Seen())
    trials = query.trials(tmp_path / "x.db", "small")
    tuned, step = trials.iloc[-1], trials.iloc[-2]
    assert tuned["tunes"] == step["number"]
    assert (tuned["widths"], tuned["epochs"]) == (step["widths"], 4)
    assert 1350 <= tuned["parameters"] <= 1500 < trials.iloc[-3]["parameters"]
    assert tuned["val_accuracy"] > step["val_accuracy"]
    row = selection.best(tmp_path / "x.db", "small", max_params=1500)
    assert row["trial_id"] == tuned["trial_id"]
    assert run(plan, tmp_path / "x.db", watch=Seen()).already_done


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("towards", [{}, {"target": {"params": [1500], "extend": 100.0}, "trials": 30}])
def test_a_path_goes_on_after_its_worker_and_its_driver_were_killed(towards: dict[str, Any], tmp_path: Path) -> None:
    schedule = {**SCHEDULE, "each": 5, "settle": 3, "tune": 8}
    values = {**VALUES, "epochs": 6, "schedule": schedule, "batch_size": 16, **towards}
    with sweep(tmp_path / "x.db", **values) as running:
        running.until("epoch", 4)
        os.kill(workers_of(running.process.pid)[0], signal.SIGKILL)
        running.until("epoch", 9 + 6)
        running.process.kill()
    run(small_plan(**values), tmp_path / "x.db", watch=Seen())
    (tmp_path / "y").mkdir()
    run(small_plan(**values), tmp_path / "y" / "y.db", watch=Seen())
    assert rows(tmp_path / "x.db", TOLD) == rows(tmp_path / "y" / "y.db", TOLD)
