"""The driver, fed by hand: what it gives out, writes and tells, and what the next one makes of what was left."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
from safetensors.numpy import save_file

from sizer import Epoch
from sizer.errors import InputError
from studies import query, selection, weights
from studies.artifacts import Artifacts, files_of
from studies.database import locate
from studies.driver import Driver
from studies.sweep import remaining
from tests.studies.benches import Bench
from tests.studies.sweeps import Seen, epoch, folder_of, small_plan


def train(driver: Driver, member: dict[str, Any], epochs: list[Epoch]) -> None:
    """What a worker does: leaves weights in its folder and reports."""
    folder = folder_of(member)
    folder.mkdir(parents=True, exist_ok=True)
    for done in epochs:
        save_file({}, folder / f"epoch-{done.epoch}.safetensors", {"epoch": str(done.epoch)})
        driver.epoch(member["trial_id"], done)


def taken(driver: Driver) -> dict[str, Any]:
    """The next member, which there is."""
    member = driver.next()
    assert member is not None
    return member


def test_arms_advance_together_and_seeds_count_from_the_plans(bench: Bench) -> None:
    plan = small_plan(seed=40)
    driver = bench.start(plan)
    members = [taken(driver) for _ in range(4)]
    assert driver.next() is None
    assert [(member["arm"], member["number"], member["seed"]) for member in members] == [
        ("shrinknets", 0, 40), ("fixed", 0, 40), ("shrinknets", 1, 41), ("fixed", 1, 41)]  # fmt: skip
    assert members[0]["widths"] == [12]
    assert members[0]["knob"] is not None
    assert members[1]["knob"] is None
    assert len({folder_of(member) for member in members}) == 4


def test_a_trial_is_its_best_validation_epoch(bench: Bench) -> None:
    driver = bench.start(small_plan())
    member = taken(driver)
    train(driver, member, [epoch(1, 0.5, 12), epoch(2, 0.8, 8), epoch(3, 0.8, 6)])
    driver.end(member["trial_id"], "complete", "", device="cpu")
    assert bench.rows("select value from trial_values") == [(0.8,)]
    assert bench.rows("select position, layer, width from sizer_architectures") == [(0, "dense1", 6)]
    assert bench.rows("select step from trial_intermediate_values order by step") == [(1,), (2,), (3,)]
    (row,) = query.trials(bench.path, "small").query("state == 'COMPLETE'").to_dict("records")
    best = epoch(3, 0.8, 6)
    assert (row["epoch"], row["val_accuracy"], row["test_accuracy"]) == (3, 0.8, best.test_accuracy)
    assert (row["parameters"], row["flops"], row["units"], row["widths"]) == (
        best.parameters, best.flops, 6, {"dense1": 6})  # fmt: skip
    assert (row["epochs"], row["seconds"], row["status"], row["device"], row["seed"]) == (3, 1.5, "complete", "cpu", 0)
    assert row["knob_name"] == "lambda"
    assert row["knob"] == member["knob"]
    assert not folder_of(member).exists()


@pytest.mark.parametrize(
    ("status", "epochs", "state", "value"),
    [
        ("complete", 2, "COMPLETE", [(0.52,)]),
        ("collapsed", 2, "COMPLETE", [(0.52,)]),
        ("collapsed", 0, "FAIL", []),
        ("diverged", 2, "FAIL", []),
        ("error", 0, "FAIL", []),
    ],
)
def test_every_end_is_recorded_as_what_it_is(
    bench: Bench, status: str, epochs: int, state: str, value: list[tuple[float]]
) -> None:
    driver = bench.start(small_plan())
    member = taken(driver)
    train(driver, member, [epoch(at, 0.5 + at / 100) for at in range(1, epochs + 1)])
    driver.end(member["trial_id"], status, "because", traceback="Traceback ...")
    assert bench.rows("select value from trial_values") == value
    row = query.trials(bench.path, "small").iloc[0]
    assert (row["state"], row["status"], row["reason"]) == (state, status, "because")
    assert isinstance(driver.watch, Seen)
    assert driver.watch.of("trial") == [("shrinknets", "0", state, status, "because")]
    assert not folder_of(member).exists()
    assert len(bench.rows("select * from sizer_weights")) == (1 if state == "COMPLETE" else 0)


def test_the_next_driver_adopts_what_runs_and_asks_for_the_rest(bench: Bench) -> None:
    plan = small_plan(trials=3)
    first = bench.start(plan)
    done, cut = taken(first), taken(first)
    train(first, done, [epoch(1), epoch(2), epoch(3)])
    first.end(done["trial_id"], "complete", "")
    train(first, cut, [epoch(1), epoch(2)])
    assert remaining(bench.database, plan) == 5

    second = bench.start(plan)
    assert isinstance(second.watch, Seen)
    assert second.watch.of("begin") == [('{"shrinknets": [1, 3], "fixed": [0, 3]}',)]
    adopted = taken(second)
    assert {**adopted, "known": 0} == {**cut, "known": 0}
    assert adopted["known"] == 2
    train(second, adopted, [epoch(2), epoch(3)])
    second.end(adopted["trial_id"], "complete", "")
    assert bench.rows("select epoch from sizer_history where trial_id = 2") == [(1,), (2,), (3,)]
    for _ in range(4):
        member = taken(second)
        train(second, member, [epoch(1)])
        second.end(member["trial_id"], "complete", "")
    assert second.next() is None
    assert remaining(bench.database, plan) == 0
    assert bench.rows("select count(*), count(distinct trial_id) from trials where state = 'COMPLETE'") == [(6, 6)]


def test_a_driver_killed_after_telling_leaves_its_folder_to_the_next(bench: Bench) -> None:
    plan = small_plan(trials=1, arms={"fixed": {"widths": {"low": 4, "high": 16}}})
    driver = bench.start(plan)
    member = taken(driver)
    train(driver, member, [epoch(1)])
    optuna.load_study(storage=bench.database.storage, study_name="small/fixed").tell(0, 0.5)
    assert remaining(bench.database, plan) == 1
    bench.start(plan)
    assert remaining(bench.database, plan) == 0
    assert bench.rows("select trial_id, epoch from sizer_weights") == [(1, 1)]


def test_weights_that_were_uploaded_and_not_written_down_are_removed(bench: Bench) -> None:
    plan = small_plan()
    bench.start(plan)
    study = optuna.load_study(storage=bench.database.storage, study_name="small/fixed")
    store = Artifacts(bench.database)
    stray = bench.database.files.with_name("trial-3-epoch-7.safetensors")
    users = bench.database.files.with_name("note.txt")
    for file in (stray, users):
        file.write_text("x")
        optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=study)
    bench.start(plan)
    (entry,) = optuna.artifacts.get_all_artifact_meta(study)
    assert entry.filename == "note.txt"
    assert [file.name for file in (bench.database.files / "artifacts").iterdir()] == [entry.artifact_id]


def test_the_three_best_and_the_fronts_are_kept_and_the_rest_goes(bench: Bench) -> None:
    plan = small_plan(trials=6, arms={"fixed": {"widths": {"low": 4, "high": 16}}})
    driver = bench.start(plan)
    # (accuracy, width) of the epochs of each trial.
    runs = [[(0.5, 4), (0.6, 9)], [(0.7, 9)], [(0.8, 9)], [(0.9, 9)], [(0.95, 8), (0.4, 20)], [(0.3, 3)]]
    for run in runs:
        member = taken(driver)
        train(driver, member, [epoch(at, *figures) for at, figures in enumerate(run, 1)])
        driver.end(member["trial_id"], "complete", "")
    # Front: width 3 at .3, width 4 at .5, width 8 at .95. Best three trials: .95, .9, .8.
    kept = bench.rows("select trial_id, epoch from sizer_weights order by trial_id, epoch")
    assert kept == [(1, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
    files = {file.name for file in (bench.database.files / "artifacts").iterdir()}
    assert files == {name for (name,) in bench.rows("select artifact_id from sizer_weights")}
    study = optuna.load_study(storage=bench.database.storage, study_name="small/fixed")
    named = {entry.filename for entry in optuna.artifacts.get_all_artifact_meta(study)}
    assert named == {f"trial-{trial - 1}-epoch-{at}.safetensors" for trial, at in kept}
    found = selection.front(bench.path, "small")
    assert list(zip(found["trial_id"], found["epoch"], strict=True)) == [(6, 1), (1, 1), (5, 1)]
    for _, row in found.iterrows():
        selection.architecture(bench.path, "small", row)
    files = files_of(bench.database, "small")
    (name,) = {name for trial, name in bench.rows("select trial_id, artifact_id from sizer_weights") if trial == 5}
    (bench.database.files / "artifacts" / name).write_bytes(b"changed")
    with pytest.raises(InputError, match="were changed since"):
        weights.file_of(bench.database, files, 5, 1)
    with pytest.raises(InputError, match="were not kept"):
        weights.file_of(bench.database, files, 2, 1)


def test_under_a_budget_the_best_epoch_that_fits_is_chosen(bench: Bench) -> None:
    driver = bench.start(small_plan())
    for figures in ([(0.9, 20), (0.7, 8)], [(0.8, 10)]):
        member = taken(driver)
        train(driver, member, [epoch(at, *each) for at, each in enumerate(figures, 1)])
        driver.end(member["trial_id"], "complete", "")
    at = {width: epoch(1, width=width) for width in (8, 10, 20)}

    def best(**limits: Any) -> tuple[str, int, float]:
        row = selection.best(bench.path, "small", **limits)
        return row["arm"], row["epoch"], row["val_accuracy"]

    assert best() == ("shrinknets", 1, 0.9)
    assert best(max_params=at[10].parameters) == ("fixed", 1, 0.8)
    assert best(max_params=at[8].parameters) == ("shrinknets", 2, 0.7)
    assert best(max_flops=at[10].flops, arm="shrinknets") == ("shrinknets", 2, 0.7)
    with pytest.raises(InputError, match="no epoch of small fits 100 parameters: the nearest is shrinknets trial 0"):
        best(max_params=100)
    with pytest.raises(InputError, match="unknown arm of small 'fixd'; there are: fixed"):
        best(arm="fixd")
    with pytest.raises(InputError, match="unknown evaluation 'smal'; there are: small"):
        query.trials(bench.path, "smal")


def test_trials_that_have_not_ended_are_in_the_frame(bench: Bench) -> None:
    driver = bench.start(small_plan())
    train(driver, taken(driver), [epoch(1)])
    taken(driver)
    frame = query.trials(bench.path, "small")
    assert tuple(frame.columns) == query.TRIALS
    assert list(frame["state"]) == ["RUNNING", "RUNNING"]
    assert list(frame["epochs"]) == [1, 0]
    assert math.isnan(frame["val_accuracy"][1])
    assert list(frame["knob_name"]) == ["lambda", ""]
    assert tuple(query.history(bench.path, "small").columns) == query.HISTORY
    with pytest.raises(InputError, match="no trial of small is complete yet"):
        selection.best(bench.path, "small")
    assert "run by process" in query.driver(bench.path, "small")


def test_an_empty_evaluation_has_frames_of_the_same_columns(bench: Bench) -> None:
    bench.start(small_plan())
    assert tuple(query.trials(bench.path, "small").columns) == query.TRIALS
    assert query.history(bench.path, "small").empty


def test_a_plan_that_changed_is_refused_and_more_trials_are_not(bench: Bench) -> None:
    driver = bench.start(small_plan())
    taken(driver)
    taken(driver)
    assert remaining(bench.database, small_plan(trials=5)) == 10
    assert remaining(bench.database, small_plan(trials=1)) == 2
    taken(driver)
    for changed, says in (
        ({"epochs": 9}, "epochs: was 3, now 9"),
        ({"seed": 1, "batch_size": 7}, "seed: was 0, now 1; batch_size: was 256, now 7"),
        ({"trials": 1}, "trials: 2 were begun, now 1"),
        ({"trials": 3, "sampler": "random", "arms": {"shrinknets": {"sampler": "grid"}}}, "trials: was 2, now 3"),
    ):
        with pytest.raises(InputError, match=says):
            remaining(bench.database, small_plan(**changed))


def test_an_id_that_sqlite_gives_out_again_has_no_old_history(tmp_path: Path) -> None:
    bench = Bench(str(tmp_path / "x.db"))
    driver = bench.start(small_plan())
    member = taken(driver)
    train(driver, member, [epoch(1), epoch(2)])
    # Whoever deletes without foreign keys, as Optuna's own command line does, leaves our rows behind.
    with sqlite3.connect(bench.path) as connection:
        for table in ("trial_params", "trial_intermediate_values", "trial_user_attributes", "trials"):
            connection.execute(f"delete from {table}")
    connection.close()
    bench.database = locate(bench.path)[0]
    again = taken(bench.start(small_plan()))
    assert again["trial_id"] == member["trial_id"]
    assert bench.rows("select * from sizer_history") == []
    assert not list(folder_of(again).iterdir())
    assert bench.lease is not None
    bench.lease.release()
