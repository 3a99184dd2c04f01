"""Packs of trials: which train together, how many, and what becomes of those beside one that fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import sizer
from sizer import networks
from sizer.errors import InputError
from sizer.methods import create
from studies import packing, query, selection
from studies.sweep import run
from studies.workers import Shares
from tests.studies.benches import Bench
from tests.studies.driven import sweep, workers_of
from tests.studies.sweeps import ARMS, Seen, check_whole, epoch, rows, small_plan
from tests.studies.test_trial_faults import ends, faulty_plan

SHARES = Shares(1, 0)


def test_beside_a_trial_comes_the_next_of_its_arm_and_fold(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=3, folds=2, arms=ARMS))
    assert driver.to_begin() == {"shrinknets": 6, "fixed": 6}
    first = driver.next()
    assert first is not None
    assert driver.next(beside=first) is None  # number 1 is the other fold
    bench_rows = bench.rows("select count(*) from trials")
    assert bench_rows == [(1,)]
    plain = bench.start(small_plan(name="plain", trials=3))
    first = plain.next()
    assert first is not None
    others = [plain.next(beside=first), plain.next(beside=first)]
    assert [(other["arm"], other["number"]) for other in others if other] == [("shrinknets", 1), ("shrinknets", 2)]
    assert plain.next(beside=first) is None
    assert plain.to_begin() == {"shrinknets": 0, "fixed": 3}


def test_trials_that_are_put_back_go_on_alone_from_where_they_were(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=3))
    first = driver.next()
    assert first is not None
    second = driver.next(beside=first)
    assert second is not None
    driver.epoch(second["trial_id"], epoch(1))
    for member in (first, second):
        driver.put_back(member["trial_id"])
        assert not driver.trains(member["trial_id"])
    again = driver.next()
    assert again is not None
    assert (again["number"], again["knob"], again["known"]) == (0, first["knob"], 0)
    assert driver.next(beside=again) is None
    again = driver.next()
    assert again is not None
    assert (again["number"], again["known"]) == (1, 1)
    last = driver.next()
    assert last is not None
    assert driver.next(beside=last) is None or last["arm"] == "fixed"


def test_rows_that_an_earlier_driver_left_train_together_again(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=3))
    first = driver.next()
    assert first is not None
    assert driver.next(beside=first) is not None
    adopted = bench.start(small_plan(trials=3))
    first = adopted.next()
    assert first is not None
    others = [adopted.next(beside=first), adopted.next(beside=first)]
    assert [first["number"]] + [other["number"] for other in others if other] == [0, 1, 2]


@pytest.mark.parametrize(
    ("pack", "limit", "says"),
    [
        ("many", None, "pack must be a number of trials, 1 or more, or auto, got many"),
        (0, None, "pack must be a number of trials, 1 or more, or auto, got 0"),
        ("-3", None, "pack must be a number of trials, 1 or more, or auto, got -3"),
        ("4", 9.0, "a pack of 4 has one clock, so no trial's own time can be limited: use --pack 1"),
        (2, None, "pack 2: group-sparsity (arm group-sparsity) has no packs, auto-sizing, fixed"),
    ],
)
def test_packs_that_cannot_be(pack: int | str, limit: float | None, says: str, tmp_path: Path) -> None:
    plan = small_plan(arms={**ARMS, "group-sparsity": {}})
    with pytest.raises(InputError) as caught:
        run(plan, tmp_path / "x.db", watch=Seen(), pack=pack, trial_timeout=limit)
    assert str(caught.value).startswith(says)
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_such_that_all_workers_end_together() -> None:
    plan = small_plan(arms={**ARMS, "group-sparsity": {}})
    asked: list[tuple[str, int]] = []

    def time(like: dict[str, Any], shares: Shares) -> int:
        asked.append((like["method"], like["most"]))
        return min(16, int(like["most"]))

    left = {"shrinknets": 40, "fixed": 16, "group-sparsity": 40}
    sizes = packing.chosen(plan, "auto", left, 2, SHARES, time)
    assert sizes == {"shrinknets": 10, "fixed": 8, "group-sparsity": 1}
    assert asked == [("shrinknets", 20), ("fixed", 8)]
    assert packing.chosen(plan, "auto", dict.fromkeys(left, 2), 2, SHARES, time) == dict.fromkeys(left, 1)
    assert packing.chosen(plan, "auto", left, 2, Shares(1, 0, 5.0), time) == dict.fromkeys(left, 1)
    assert packing.chosen(plan, 7, left, 2, SHARES, time) == dict.fromkeys(left, 7)
    assert len(asked) == 2


@pytest.mark.parametrize(
    "values", [{"sampler": "tpe"}, {"sampler": "gp"}, {"max_training_flops": 1e9}, {"max_concurrent_trials": 1}]
)
def test_who_asks_by_what_trials_came_to_has_no_packs_unasked(values: dict[str, Any]) -> None:
    plan = small_plan(trials=40, **values)
    left = dict.fromkeys(plan.every, 40)
    assert packing.chosen(plan, "auto", left, 2, SHARES, lambda like, shares: 4) == dict.fromkeys(left, 1)
    assert packing.chosen(plan, 7, left, 2, SHARES, lambda like, shares: 4) == dict.fromkeys(left, 7)


LONG: dict[str, Any] = {"epochs": 12, "trials": 3, "batch_size": 16, "widths": [40]}
TOLD = ("select study_name, number, epoch, train_loss, parameters"
        " from sizer_history join trials using (trial_id) join studies using (study_id)"
        " order by study_name, number, epoch")  # fmt: skip


def assert_alike(packed: list[tuple[Any, ...]], single: list[tuple[Any, ...]]) -> None:
    """The same trials and epochs; first losses but for the last digits, and networks of the same sizes."""
    assert [row[:3] for row in packed] == [row[:3] for row in single]
    for mine, other in zip(packed, single, strict=True):
        if mine[2] == 1:
            assert mine[3] == pytest.approx(other[3], rel=1e-5)
        assert mine[4] == pytest.approx(other[4], rel=0.05, abs=2 * 75)


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_a_sweep_in_packs_is_the_same_as_without(tmp_path: Path) -> None:
    plan = small_plan(trials=3)
    for pack in (3, 1):
        path = tmp_path / f"{pack}.db"
        assert run(plan, path, watch=Seen(), pack=pack).ended == {arm: {"complete": 3} for arm in ARMS}
        check_whole(path, plan)
    assert_alike(rows(tmp_path / "3.db", TOLD), rows(tmp_path / "1.db", TOLD))


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_a_plan_is_trained_in_its_precision_alone_and_in_packs(tmp_path: Path) -> None:
    plan = small_plan(trials=2, arms={"shrinknets": {"enqueue": [1e-3, 2e-3], "precision": "bfloat16"}})
    data = plan.read_data()
    alone = []
    for seed, knob in enumerate((1e-3, 2e-3)):
        torch.manual_seed(seed)
        module = networks.build("mlp", data.input_shape, data.outputs, [12])
        method = create("shrinknets", knob)
        alone += sizer.fit(module, data, method, epochs=3, seed=seed, precision="bfloat16").history
    for pack in (1, 2):
        path = tmp_path / f"{pack}.db"
        run(plan, path, watch=Seen(), pack=pack)
        assert [row[3] for row in rows(path, TOLD)] == [epoch.train_loss for epoch in alone]
    built, _ = selection.architecture(path, "small", selection.best(path, "small"))
    assert built.info["training"]["precision"] == "bfloat16"


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_a_pack_outlives_its_worker(tmp_path: Path) -> None:
    plan, path = small_plan(**LONG), tmp_path / "x.db"
    with sweep(path, **LONG, options={"pack": 3}) as running:
        running.until("epoch", 8)
        os.kill(workers_of(running.process.pid)[0], signal.SIGKILL)
        assert running.end() == (0, "")
    check_whole(path, plan)
    assert len(running.of("epoch")) == 2 * 3 * 12
    assert {note.partition(": ")[2][:15] for (note,) in running.of("note")} == {"its worker died"}
    run(plan, tmp_path / "y.db", watch=Seen(), pack=1)
    assert_alike(rows(path, TOLD), rows(tmp_path / "y.db", TOLD))


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_who_fails_or_is_ended_in_a_pack_harms_no_other(tmp_path: Path) -> None:
    path, seen = tmp_path / "x.db", Seen()
    outcome = run(faulty_plan(4, 5, 6, 7, 12), path, watch=seen, pack=5)
    assert (outcome.left, outcome.ended) == (0, {"fixed": {"error": 4, "complete": 1}})
    reasons = [reason for _, _, reason in ends(path)]
    assert reasons[0] == "ValueError: a user's bug"
    assert all(reason.startswith("out of memory (") for reason in reasons[1:3])
    assert reasons[3:] == ["SystemExit: a user's bug", ""]
    assert any("does not fit in memory: it goes on as packs of" in note for (note,) in seen.of("note"))

    plan = small_plan(trials=4, arms={"fixed": {"widths": {"low": 4, "high": 40}}}, name="cut")
    outcome = run(plan, path, watch=Seen(), pack=4, stopper=lambda _, told: told["widths"]["dense1"] < 12)
    widths = [width for (width,) in rows(path, "select param_value from trial_params order by trial_id desc limit 4")]
    small = sum(width < 12 for width in widths)
    assert 0 < small < 4
    told = query.origins(path, "cut")
    assert [told["environment"][at].get("pack") for at in told.index if told["device"][at]] == ["4"]
    assert outcome.ended == {"fixed": {"pruned": small, "complete": 4 - small}}


@pytest.mark.alone
@pytest.mark.soak
@pytest.mark.usefixtures("ray_here")
def test_a_pack_that_loses_its_worker_twice_is_split(tmp_path: Path) -> None:
    path, seen = tmp_path / "x.db", Seen()
    outcome = run(faulty_plan(12, 8, 12), path, watch=seen, pack=3)
    assert (outcome.left, outcome.ended) == (0, {"fixed": {"error": 1, "complete": 2}})
    assert any(note == "fixed: a pack of 3 lost its worker twice; each trial goes on by itself"
               for (note,) in seen.of("note"))  # fmt: skip
    assert ends(path)[1][2].startswith("its worker died 4 times")
    assert not list((tmp_path / "x.files" / "runs").iterdir())
