"""Arms that may spend so many FLOPs of training, and baselines that draw their learning rate with their widths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from sizer.errors import InputError
from studies import query
from studies.estimate import dry_run
from studies.search import point, space
from studies.standing import standing
from studies.sweep import remaining, run
from tests.studies.benches import Bench
from tests.studies.sweeps import ARMS, Seen, epoch, small_plan

WIDTHS = {"low": 4, "high": 16}
RATES = {"low": 1e-4, "high": 1e-2}


def train_all(bench: Bench, most: float, trials: int = 9) -> dict[str, int]:
    """Trains one trial after the other, 3,000 FLOPs each; arm -> trials."""
    driver = bench.start(small_plan(trials=trials, max_training_flops=most))
    counts = dict.fromkeys(ARMS, 0)
    while driver.left:
        member = driver.next()
        assert member is not None
        counts[member["arm"]] += 1
        for number in range(3):
            driver.epoch(member["trial_id"], epoch(number + 1))
        driver.end(member["trial_id"], "complete", "")
    return counts


def test_an_arm_begins_no_trial_once_its_flops_are_spent(bench: Bench) -> None:
    assert train_all(bench, 6000) == {"shrinknets": 2, "fixed": 2}
    assert train_all(bench, 6000) == {"shrinknets": 0, "fixed": 0}, "a new driver knows what the one before spent"
    assert [arm.planned for arm in standing(bench.database, "small").arms] == [2, 2]
    assert remaining(bench.database, small_plan(trials=9, max_training_flops=6000)) == 0
    assert train_all(bench, 6001) == {"shrinknets": 1, "fixed": 1}, "a larger limit goes on, and one trial passes it"
    assert train_all(bench, 1e9, trials=5) == {"shrinknets": 2, "fixed": 2}, "the number of trials holds, too"


def test_trials_that_train_count_with_what_the_others_cost(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=9, max_training_flops=9000, arms={"fixed": ARMS["fixed"]}))

    def end(member: dict[str, Any], flops: int) -> None:
        driver.epoch(member["trial_id"], epoch(1, training_flops=flops))
        driver.end(member["trial_id"], "complete", "")

    first, second = driver.next(), driver.next()
    assert first is not None
    assert second is not None
    end(first, 3000)
    assert bench.said("expect") == [("fixed", "3")]
    assert standing(bench.database, "small").arms[0].planned == 3, "if the others cost as much"
    third = driver.next()
    assert third is not None
    assert driver.next() is None, "three of 3,000 spend it all"
    assert driver.left, "but may not"
    end(second, 1000)
    end(third, 1000)
    last = driver.next()
    assert last is not None
    end(last, 4000)
    assert driver.left == 0
    assert bench.said("expect")[-1] == ("fixed", "4")
    bench.start(small_plan(trials=9, max_training_flops=9000, arms={"fixed": ARMS["fixed"]}))
    assert bench.said("begin") == [('{"fixed": [4, 4]}',)]


def test_an_arm_that_turns_out_cheaper_is_to_have_all_of_its_trials_again(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=4, max_training_flops=9000, arms={"fixed": ARMS["fixed"]}))
    for flops in (4000, 500, 500):
        member = driver.next()
        assert member is not None
        driver.epoch(member["trial_id"], epoch(1, training_flops=flops))
        driver.end(member["trial_id"], "complete", "")
    assert bench.said("expect") == [("fixed", "3"), ("fixed", "4"), ("fixed", "4")]


def test_before_a_trial_has_ended_its_epochs_say_how_many_there_will_be(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=9, max_training_flops=9000, arms={"fixed": ARMS["fixed"]}))
    member = driver.next()
    assert member is not None
    assert standing(bench.database, "small").arms[0].planned == 9, "nobody knows yet"
    for number in (1, 2):
        driver.epoch(member["trial_id"], epoch(number, training_flops=600 * number))
    assert standing(bench.database, "small").arms[0].planned == 5, "three such epochs are 1,800"


def test_no_more_trials_of_an_arm_train_at_once_than_the_plan_says(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=3, max_concurrent_trials=1))
    first, second = driver.next(), driver.next()
    assert first is not None
    assert second is not None
    assert {first["arm"], second["arm"]} == set(ARMS)
    assert driver.next(beside=first) is None, "in no pack, either"
    assert driver.next() is None
    assert driver.left == 4
    driver.epoch(first["trial_id"], epoch(1))
    driver.end(first["trial_id"], "complete", "")
    third = driver.next()
    assert third is not None
    assert (third["arm"], third["number"]) == (first["arm"], 1)


def test_what_trials_that_failed_or_were_pruned_have_spent_counts(bench: Bench) -> None:
    driver = bench.start(small_plan(trials=9, max_training_flops=2000, arms={"fixed": ARMS["fixed"]}))
    for status in ("error", "pruned"):
        member = driver.next()
        assert member is not None
        driver.epoch(member["trial_id"], epoch(1))
        driver.end(member["trial_id"], status, "it was so")
    assert driver.left == 0
    assert driver.next() is None


def test_a_learning_rate_is_drawn_beside_widths_and_trained_with(bench: Bench) -> None:
    plan = small_plan(arms={"fixed": {"widths": WIDTHS, "learning_rate": RATES, "sampler": "tpe"}}, trials=4)
    assert set(space(plan, plan.arms["fixed"])) == {"width_dense1", "learning_rate"}
    driver = bench.start(plan)
    rates = []
    while driver.left:
        member = driver.next()
        assert member is not None
        rates.append(member["learning_rate"])
        driver.epoch(member["trial_id"], epoch(1))
        driver.end(member["trial_id"], "complete", "")
    study = optuna.load_study(study_name="small/fixed", storage=bench.database.storage)
    assert [trial.params["learning_rate"] for trial in study.trials] == rates
    assert len(set(rates)) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert list(query.trials(bench.database, "small")["learning_rate"]) == rates


def test_a_point_of_ones_own_has_a_learning_rate() -> None:
    own = {"widths": [7], "learning_rate": 3e-3}
    plan = small_plan(arms={"fixed": {"widths": WIDTHS, "learning_rate": RATES, "enqueue": [own]}})
    found = point(plan, "fixed", {"width_dense1": 7, "learning_rate": 3e-3})
    assert (found.widths, found.learning_rate) == ([7], 3e-3)


def test_what_a_limit_of_flops_would_cost_is_estimated_with_it() -> None:
    arms = {"fixed": {"widths": WIDTHS, "learning_rate": RATES}}
    (whole,) = dry_run(small_plan(arms=arms, trials=1000))
    (limited,) = dry_run(small_plan(arms=arms, trials=1000, max_training_flops=2 * whole.largest.training_flops))
    assert limited.seconds[1] < whole.seconds[1] / 5
    assert "learning rate 0.0001..0.01" in limited.draws


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_training_flops": 0}, "max_training_flops: should be greater than 0, got 0"),
        ({"max_training_flops": 1e9, "folds": 3}, "max_training_flops: every point is wanted in all 3 folds"),
        (
            {"max_training_flops": 1e9, "arms": {"shrinknets": {"learning_rate": [1e-3, 1e-2]}}},
            "max_training_flops: what the stages of shrinknets spend would not count",
        ),
        (
            {"max_training_flops": 1e9, "arms": {"shrinknets": {}, "fixed": {"widths": {"mean_of": "shrinknets"}}}},
            "max_training_flops: what shrinknets spends on the widths of fixed would not count",
        ),
        (
            {"arms": {"fixed": {"widths": {"cut": 0.1}, "learning_rate": RATES}}},
            "arms.fixed.learning_rate: its widths are taken from elsewhere",
        ),
        (
            {"arms": {"fixed": {"widths": WIDTHS, "learning_rate": RATES, "enqueue": [{"widths": [7]}]}}},
            "a baseline's point is a table of learning_rate and widths",
        ),
        (
            {"arms": {"fixed": {"widths": WIDTHS, "learning_rate": RATES,
                                "enqueue": [{"widths": [7], "learning_rate": -1.0}]}}},
            "widths, weight_decay and learning_rate must be positive",
        ),
    ],
)  # fmt: skip
def test_limits_and_rates_that_make_no_sense_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        small_plan(**values)
    assert says in str(caught.value)


@pytest.mark.alone
@pytest.mark.usefixtures("ray_here")
def test_a_sweep_ends_when_its_flops_are_spent(tmp_path: Path) -> None:
    arms = {**ARMS, "fixed": {"widths": WIDTHS, "learning_rate": RATES}}
    plan = small_plan(arms=arms, trials=50, max_training_flops=1.2e7)
    outcome = run(plan, tmp_path / "x.db", watch=Seen(), concurrency=2)
    assert outcome.left == 0
    trials = query.trials(tmp_path / "x.db", "small")
    assert set(trials["state"]) == {"COMPLETE"}
    for _, rows in trials.groupby("arm"):
        assert rows["training_flops"].sum() >= 1.2e7
        assert rows["training_flops"].iloc[:-2].sum() < 1.2e7, "no more was begun than trained side by side"
        assert len(rows) < 50
    assert run(plan, tmp_path / "x.db", watch=Seen()).already_done
