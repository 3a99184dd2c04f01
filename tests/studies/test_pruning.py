"""Trials that are pruned: the same as by Optuna itself, and what the database has of them, whoever is killed when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna import pruners
from safetensors.numpy import save_file

import sizer
from dashboards import commands
from dashboards.source import Local
from sizer import datasets, methods, networks
from studies import query, search, selection
from studies.database import open_database
from studies.driver import Driver
from studies.plan import Plan
from studies.sweep import remaining, run
from tests.studies.benches import Bench
from tests.studies.sweeps import ARMS, Seen, epoch, folder_of, rows, small_plan
from tests.studies.test_driver import taken

FIXED = {"fixed": ARMS["fixed"]}
# Keeps the better half at 1, 2, 4, 8 epochs.
HALVING = {"name": "successive-halving", "reduction_factor": 2}
LIKE_OPTUNA: dict[str, tuple[dict[str, Any], pruners.BasePruner]] = {
    "median": ({"n_startup_trials": 2}, pruners.MedianPruner(n_startup_trials=2)),
    "percentile": ({"percentile": 60, "n_startup_trials": 1}, pruners.PercentilePruner(60, n_startup_trials=1)),
    "successive-halving": ({"reduction_factor": 2}, pruners.SuccessiveHalvingPruner(1, reduction_factor=2)),
    "hyperband": ({}, pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)),
    "threshold": ({"lower": 0.3, "n_warmup_steps": 2}, pruners.ThresholdPruner(lower=0.3, n_warmup_steps=2)),
}


@pytest.fixture
def on_file(tmp_path: Path) -> Iterator[Bench]:
    """A bench on SQLite alone, for what does not depend on the database."""
    made = Bench(str(tmp_path / "x.db"))
    yield made
    assert made.lease is not None
    made.lease.release()
    made.database.close()


def fed(driver: Driver, member: dict[str, Any], *values: float, first: int = 1) -> bool:
    """Reports epochs of these accuracies, as long as the trial is to train on; says whether it then still is."""
    folder = folder_of(member)
    folder.mkdir(parents=True, exist_ok=True)
    for at, value in enumerate(values, first):
        save_file({}, folder / f"epoch-{at}.safetensors", {"epoch": str(at)})
        if not driver.epoch(member["trial_id"], epoch(at, value)):
            return False
    return True


def ended(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.rows(
        "select number, state, value from trials left join trial_values using (trial_id) where state != 'RUNNING'"
        " order by study_id, number"
    )


@pytest.mark.parametrize(
    ("name", "restarted"), [*((name, False) for name in LIKE_OPTUNA), ("hyperband", True), ("median", True)]
)
def test_the_same_trials_are_pruned_at_the_same_epochs_as_by_optuna_itself(
    on_file: Bench, name: str, restarted: bool
) -> None:
    """New drivers in the middle of trials change nothing; what was trained to its last epoch is never pruned."""
    arguments, pruner = LIKE_OPTUNA[name]
    last, count = 9, 12
    values = [[round((7 * k % 10) / 10 + at / 100 * (k % 4), 3) for at in range(last)] for k in range(count)]

    def objective(trial: optuna.Trial) -> float:
        for at, value in enumerate(values[trial.number], 1):
            trial.report(value, at)
            if at < last and trial.should_prune():
                raise optuna.TrialPruned
        return max(values[trial.number])

    reference = optuna.create_study(study_name="small/fixed", direction="maximize", pruner=pruner)
    reference.optimize(objective, n_trials=count)
    plan = small_plan(epochs=last, trials=count, pruner={"name": name, **arguments}, arms=FIXED)
    driver = on_file.start(plan)
    for k in range(count):
        member = taken(driver)
        assert member["number"] == k
        goes_on = True
        for at, value in enumerate(values[k], 1):
            goes_on = goes_on and fed(driver, member, value, first=at)
            if restarted and goes_on and at in {1, 3}:
                driver = on_file.start(plan)
                member = taken(driver)
        if goes_on:
            driver.end(member["trial_id"], "complete", "")
    assert driver.next() is None
    study = optuna.load_study(storage=on_file.database.storage, study_name="small/fixed")
    assert [(row.state, row.value, row.last_step) for row in study.trials] == [
        (row.state, row.value, row.last_step) for row in reference.trials
    ]
    assert {row.state.name for row in study.trials} == {"COMPLETE", "PRUNED"}


def test_a_pruned_trial_has_its_last_value_its_reason_and_its_best_epoch(bench: Bench) -> None:
    plan = small_plan(epochs=4, trials=2, pruner=HALVING, arms=FIXED)
    driver = bench.start(plan)
    first, second = taken(driver), taken(driver)
    assert fed(driver, first, 0.5, 0.6, 0.7, 0.8)
    driver.end(first["trial_id"], "complete", "")
    assert fed(driver, second, 0.6)
    assert not driver.epoch(second["trial_id"], epoch(2, 0.412, width=6))
    assert ended(bench) == [(0, "COMPLETE", 0.8), (1, "PRUNED", 0.412)]
    row = query.trials(bench.path, "small").iloc[1]
    assert (row["status"], row["reason"]) == ("pruned", "successive-halving: 0.412 after epoch 2 of 4")
    assert (row["epoch"], row["val_accuracy"], row["epochs"], row["widths"]) == (1, 0.6, 2, {"dense1": 8})
    assert bench.rows("select trial_id, width from sizer_architectures") == [(1, 8), (2, 8)]
    assert bench.rows("select distinct trial_id from sizer_weights") == [(1,)]
    assert not folder_of(second).exists()
    assert isinstance(driver.watch, Seen)
    assert driver.watch.of("trial")[-1][:4] == ("fixed", "1", "PRUNED", "pruned")
    assert remaining(bench.database, plan) == 0
    assert selection.best(bench.path, "small")["number"] == 0


def test_a_sizing_arm_is_pruned_by_a_field_of_its_own_alone(on_file: Bench) -> None:
    falling = [[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]

    def states(plan: Plan) -> list[str]:
        driver = on_file.start(plan)
        for values in falling:
            member = taken(driver)
            if fed(driver, member, *values):
                driver.end(member["trial_id"], "complete", "")
        return [state for _, state, _ in ended(on_file)]

    sizing = {"shrinknets": ARMS["shrinknets"]}
    assert states(small_plan(pruner=HALVING, arms=sizing)) == ["COMPLETE", "COMPLETE"]
    own = {"shrinknets": {**ARMS["shrinknets"], "pruner": HALVING}}
    assert states(small_plan(name="own", arms=own))[2:] == ["COMPLETE", "PRUNED"]


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_what_was_decided_is_done_by_the_next_driver(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before Optuna was told: the trial is not trained again, though successive halving would let it pass."""
    plan = small_plan(epochs=4, trials=3, pruner=HALVING, arms=FIXED)
    driver = bench.start(plan)
    fed(driver, taken(driver), 0.9)
    cut = taken(driver)
    with monkeypatch.context() as patch:
        patch.setattr(search, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            fed(driver, cut, 0.3)
    second = bench.start(plan)
    assert [taken(second)["number"] for _ in range(2)] == [0, 2]
    assert ended(bench) == [(1, "PRUNED", 0.3)]
    assert not folder_of(cut).exists()


@pytest.mark.parametrize(
    ("pruner", "pruned_after"), [({"name": "median", "n_startup_trials": 1}, 1), (HALVING, 2)], ids=["median", "half"]
)
def test_a_decision_of_which_no_word_was_written_is_made_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, pruner: dict[str, Any], pruned_after: int
) -> None:
    """The median is looked at again before anything is trained; halving, which has ranked the trial, does so next."""
    plan = small_plan(epochs=4, trials=2, pruner=pruner, arms=FIXED)
    driver = bench.start(plan)
    first = taken(driver)
    fed(driver, first, 0.9, 0.9, 0.9, 0.9)
    driver.end(first["trial_id"], "complete", "")
    member = taken(driver)
    with monkeypatch.context() as patch:
        patch.setattr(Driver, "end", killed)
        with pytest.raises(KeyboardInterrupt):
            fed(driver, member, 0.3)
    second = bench.start(plan)
    adopted = second.next()
    assert (adopted is None) is (pruned_after == 1)
    if adopted is not None:
        assert adopted["known"] == 1
        assert not fed(second, adopted, 0.4, first=2)
    assert ended(bench)[1] == (1, "PRUNED", 0.3 if pruned_after == 1 else 0.4)


@pytest.mark.parametrize("at", ["before", "after"])
def test_an_epoch_and_its_value_for_the_pruner_are_written_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    plan = small_plan(epochs=4, trials=2, pruner=HALVING, arms=FIXED)
    driver = bench.start(plan)
    fed(driver, taken(driver), 0.9, 0.9)
    member = taken(driver)
    with monkeypatch.context() as patch:
        patch.setattr(*((driver._lease, "show") if at == "before" else (driver, "_prunes")), killed)
        with pytest.raises(KeyboardInterrupt):
            fed(driver, member, 0.3)
    second = bench.start(plan)
    assert taken(second)["number"] == 0
    adopted = second.next()
    assert (adopted is None) is (at == "after")
    if adopted is not None:
        assert adopted["known"] == 0
        assert not fed(second, adopted, 0.3)
    assert ended(bench) == [(1, "PRUNED", 0.3)]


def test_a_trial_that_is_stopped_from_outside_is_pruned_with_its_last_value(bench: Bench) -> None:
    driver = bench.start(small_plan(arms=FIXED))
    first, second = taken(driver), taken(driver)
    fed(driver, first, 0.5, 0.4)
    for member in (first, second, first):  # a second time it has ended already
        driver.cut(member["trial_id"], "Ray Tune")
    assert ended(bench) == [(0, "PRUNED", 0.4), (1, "PRUNED", None)]
    assert list(query.trials(bench.path, "small")["reason"]) == [
        "Ray Tune: 0.400 after epoch 2 of 3", "Ray Tune: before its first epoch"]  # fmt: skip


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp"])
def test_hyperband_goes_with_every_sampler(on_file: Bench, sampler: str) -> None:
    plan = small_plan(epochs=9, trials=9, sampler=sampler, pruner="hyperband", arms=FIXED)
    driver = on_file.start(plan)
    while (member := driver.next()) is not None:
        if fed(driver, member, *[member["widths"][0] / 20] * 9):
            driver.end(member["trial_id"], "complete", "")
    states = [state for _, state, _ in ended(on_file)]
    assert len(states) == 9
    assert set(states) == {"COMPLETE", "PRUNED"}


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_through_ray_a_pruned_trial_stops_at_once_and_its_worker_goes_on_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    arms = {
        "shrinknets": {**ARMS["shrinknets"], "enqueue": [1e-3, 1e-1, 1e-3]},
        "fixed": {**ARMS["fixed"], "enqueue": [{"widths": [64]}, {"widths": [1]}, {"widths": [400]}]},
    }
    plan = small_plan(epochs=4, trials=3, batch_size=32, arms=arms, pruner={"name": "median", "n_startup_trials": 1})
    pids = set()

    def stopper(trial: str, result: dict[str, Any]) -> bool:
        """Ray Tune's side: ends the last sizing trial after two epochs."""
        pids.add(result["pid"])
        (member,) = result["members"]
        return bool(member["trial_id"] == 5 and result["epoch"] == 2)

    seen = Seen()
    outcome = run(plan, path, watch=seen, concurrency=1, stopper=stopper)
    assert outcome.ended == {"shrinknets": {"complete": 2, "pruned": 1}, "fixed": {"complete": 2, "pruned": 1}}
    assert len(pids) == 1, "one worker trained them all"
    trials = query.trials(path, "small").set_index(["arm", "number"])
    assert list(trials["epochs"]) == [4, 4, 2, 4, 1, 4]
    assert trials.loc[("fixed", 1), "reason"].startswith("median: 0.")
    assert trials.loc[("shrinknets", 2), "reason"].startswith("Ray Tune: 0.")
    for arm, number in (("fixed", 1), ("shrinknets", 2)):
        trial_id = int(trials.loc[(arm, number), "trial_id"])
        ((value, last),) = rows(
            path,
            "select value, val_accuracy from trial_values join sizer_history using (trial_id)"
            " where trial_id = ? order by epoch desc limit 1",
            trial_id,
        )
        assert value == last
    assert rows(path, "select count(*) from trials where state not in ('COMPLETE', 'PRUNED')") == [(0,)]
    assert list((tmp_path / "x.files" / "runs").iterdir()) == []
    assert rows(path, "select * from sizer_weights where trial_id in (4, 5)") == []

    # The trial after the pruned one is, to the bit, the one that would have been trained alone.
    data = datasets.load("digits", validation=0.2, seed=0)
    torch.manual_seed(2)
    module = networks.build("mlp", data.input_shape, data.outputs, [400])
    here = sizer.fit(module, data, methods.create("fixed", None), epochs=4, batch_size=32, seed=2).history
    there = query.history(path, "small").query("arm == 'fixed' and number == 2")
    assert [each.val_loss for each in here] == list(there["val_loss"])
    assert run(plan, path, watch=Seen()).already_done
    assert "fixed: 1 of 3 trials were pruned" in commands.report(Local(open_database(path)), "small")
