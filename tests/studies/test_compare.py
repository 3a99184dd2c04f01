"""The comparison of arms says what its definition says, whatever became of the trials."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from studies.compare import Comparison, compare, dependent_arms, ranked
from studies.distributions import expected_best, median_interval, spread_test
from tests.frames import evaluation, without_result

NO_EPOCHS = pd.DataFrame(columns=["arm", "trial_id", "epoch", "val_accuracy"])


def trials_of(arm: str, results: list[tuple[float, float, int]], first_id: int = 0) -> pd.DataFrame:
    """Complete trials of an arm from (validation accuracy, test accuracy, parameters), 100 training FLOPs each."""
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "method": arm,
                "trial_id": first_id + number,
                "number": number,
                "state": "COMPLETE",
                "status": "complete",
                "reason": "",
                "val_accuracy": val,
                "test_accuracy": test,
                "parameters": parameters,
                "units": parameters // 10,
                "training_flops": 100,
                "seconds": 2.0,
            }
            for number, (val, test, parameters) in enumerate(results)
        ]
    )


def two_arms(sizing: list[tuple[float, float, int]], fixed: list[tuple[float, float, int]]) -> Comparison:
    trials = pd.concat([trials_of("shrinknets", sizing), trials_of("fixed", fixed, first_id=100)])
    return compare(trials, NO_EPOCHS)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_expected_best_is_the_mean_over_all_draws_of_n_trials(tests: list[float]) -> None:
    """Checked by drawing every subset; the first in the list is the one validation prefers."""
    exact = expected_best(tests)
    for n in range(1, len(tests) + 1):
        every_draw = [tests[min(draw)] for draw in itertools.combinations(range(len(tests)), n)]
        assert exact[n - 1] == pytest.approx(np.mean(every_draw))


def test_expected_best_chooses_by_validation_and_reports_test() -> None:
    arm = two_arms([(0.99, 0.50, 10), (0.90, 0.95, 10)], [(0.9, 0.9, 10)] * 2).arms[0]
    assert arm.best == 0.95
    assert arm.chosen == 0.50
    assert arm.expected == pytest.approx((0.725, 0.50))


def test_trials_that_depend_on_each_other_are_tested_against_none_and_count_together() -> None:
    """Their expected best is what validation chooses among all, at what all cost; from there an arm is reached."""
    walked = trials_of("shrinknets", [(0.99 - at / 100, 0.97 - at / 100, 10) for at in range(6)])
    trials = pd.concat([walked, trials_of("fixed", [(0.9 + at / 100, 0.9, 100) for at in range(6)], first_id=100)])
    found = compare(trials, NO_EPOCHS, dependent={"shrinknets": "are the steps of a path"})
    arm = found.arms[0]
    assert np.isnan(arm.expected[:-1]).all()
    assert (arm.expected[-1], arm.chosen, arm.cost) == (0.97, 0.97, 100)
    assert (found.pairs, found.spread_p) == ((), None)
    assert (found.reaches[0].trials, found.reaches[0].flops) == (6, 600)
    assert any(note.startswith("shrinknets: its trials are the steps of a path: no test") for note in found.notes)
    assert compare(trials, NO_EPOCHS).pairs


def test_trials_depend_on_each_other_where_later_ones_go_by_earlier_ones() -> None:
    knob = {"low": 1e-4, "high": 1e-2}
    arms = {
        "walks": {"method": "shrinknets", "lambda": knob, "schedule": {"name": "path"}},
        "looks": {"method": "shrinknets", "lambda": knob},
        "fills": {"method": "auto-sizing", "lambda": knob, "sampler": "size"},
        "draws": {"method": "shrinknets", "lambda": knob, "sampler": "tpe"},
        "fixed": {"method": "fixed"},
    }
    target = {"params": [1000]}
    found = dependent_arms({"arms": arms, "target": target, "sampler": "random"})
    assert set(found) == {"walks", "looks", "fills", "draws"}
    assert found["draws"] == "are drawn by tpe, each by what the ones before came to"
    assert set(dependent_arms({"arms": arms, "sampler": "random"})) == {"walks", "fills", "draws"}
    arms |= {
        "cut": {"method": "fixed", "widths": {"cut": 0.1}},
        "fixed.learning-rate": {"method": "fixed", "stage": "x"},
    }
    arms["cut-l2"] = {"method": "fixed-l2", "widths": {"cut": 0.0}, "weight_decay": {"low": 1e-5, "high": 1e-2}}
    found = dependent_arms({"arms": arms, "sampler": "gp"})
    assert found["walks"].startswith("are the steps of a path")
    assert set(found) == set(arms) - {"cut", "fixed.learning-rate"}


def test_equal_validation_goes_to_the_smaller_network_and_then_to_the_earlier_trial() -> None:
    trials = trials_of("fixed", [(0.9, 0.1, 30), (0.9, 0.2, 20), (0.9, 0.3, 20), (0.8, 0.4, 1)])
    assert list(ranked(trials)["number"]) == [1, 2, 0, 3]


def test_an_arm_is_described_by_the_quartiles_of_its_test_accuracies() -> None:
    arm = two_arms([(0.9, test, 100) for test in (0.5, 0.1, 0.2, 0.4, 0.3)], [(0.9, 0.9, 10)] * 2).arms[0]
    assert (arm.worst, arm.lower, arm.median, arm.upper, arm.best) == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert arm.spread == pytest.approx(0.2)
    assert (arm.parameters, arm.units, arm.training_flops, arm.seconds) == (100, 10, 100, 2.0)


def test_collapsed_trials_count_and_failed_ones_are_named() -> None:
    trials, history = evaluation(trials=5)
    trials.loc[(trials["arm"] == "shrinknets") & (trials["number"] == 1), "status"] = "collapsed"
    trials = without_result(trials, "shrinknets", 3, "FAIL", "diverged", "the loss became NaN in epoch 2")
    comparison = compare(trials, history)
    arm = comparison.arms[0]
    assert (arm.trials, arm.finished, arm.collapsed, arm.failed, arm.unfinished) == (5, 4, 1, 1, 0)
    assert arm.failures == ("trial 3: diverged, the loss became NaN in epoch 2",)
    assert "shrinknets: 1 of 5 trials gave no network; they do not count" in comparison.notes
    assert "shrinknets: 1 of 5 trials collapsed (a layer emptied); they count" in comparison.notes


def test_a_trial_that_failed_after_good_epochs_does_not_count_either() -> None:
    trials, history = evaluation(trials=3)
    trials.loc[(trials["arm"] == "fixed") & (trials["number"] == 1), ["state", "status"]] = ["FAIL", "diverged"]
    fixed = next(arm for arm in compare(trials, history).arms if arm.name == "fixed")
    assert (fixed.finished, fixed.failures) == (2, ("trial 1: diverged",))


def test_a_trial_that_collapsed_before_its_first_epoch_is_named_and_does_not_count() -> None:
    trials, history = evaluation(trials=3)
    trials = without_result(trials, "shrinknets", 0, "COMPLETE", "collapsed", "dense2 would have emptied in epoch 1")
    arm = compare(trials, history).arms[0]
    assert (arm.finished, arm.collapsed, arm.failed) == (2, 0, 1)
    assert arm.failures == ("trial 0: collapsed, dense2 would have emptied in epoch 1",)


def test_trials_that_have_not_ended_are_left_out_and_said() -> None:
    trials, history = evaluation(trials=4)
    trials = without_result(trials, "fixed", 2, "RUNNING", "", "")
    comparison = compare(trials, history)
    fixed = next(arm for arm in comparison.arms if arm.name == "fixed")
    assert (fixed.finished, fixed.unfinished, fixed.failed) == (3, 1, 0)
    assert any(note.startswith("fixed: 1 of 4 trials") for note in comparison.notes)


def test_what_the_plan_has_and_the_database_not_yet_is_said() -> None:
    trials, history = evaluation(trials=4, arms=["shrinknets"])
    plan = {"shrinknets": "shrinknets", "fixed": "fixed"}
    shrinknets, fixed = compare(trials, history, arms=plan, planned=dict.fromkeys(plan, 10)).arms
    assert (shrinknets.trials, shrinknets.finished, shrinknets.unfinished, shrinknets.begun) == (10, 4, 6, True)
    assert (fixed.trials, fixed.finished, fixed.unfinished, fixed.begun) == (10, 0, 10, False)


@pytest.mark.parametrize("finished", [0, 1])
def test_an_arm_with_fewer_than_two_finished_trials_is_said_to_be_too_small(finished: int) -> None:
    trials, history = evaluation(trials=3, arms=["shrinknets", "fixed"])
    for number in range(finished, 3):
        trials = without_result(trials, "fixed", number, "WAITING", "", "")
    comparison = compare(trials, history)
    assert comparison.pairs == ()
    assert comparison.spread_p is None
    assert any(note.startswith("fixed: ") and "too few to compare" in note for note in comparison.notes)


def test_an_evaluation_that_has_only_begun_compares_nothing_and_does_not_fail() -> None:
    trials, history = evaluation(trials=1, arms=["shrinknets", "fixed"])
    for arm in ("shrinknets", "fixed"):
        trials = without_result(trials, arm, 0, "RUNNING", "", "")
    comparison = compare(trials, history.iloc[:0])
    assert comparison.threshold is None
    assert [arm.median for arm in comparison.arms] == [None, None]
    assert compare(trials.iloc[:0], history.iloc[:0]).arms == ()


def test_a_clear_difference_has_an_interval_on_one_side_of_zero() -> None:
    high = [(0.9, 0.97 + 0.001 * i, 1000) for i in range(10)]
    low = [(0.9, 0.95 + 0.001 * i, 4100) for i in range(10)]
    pair = two_arms(high, low).pairs[0]
    assert pair.difference == pytest.approx(0.02)
    assert 0 < pair.low < pair.difference < pair.high
    assert pair.p == pytest.approx(stats.mannwhitneyu([t for _, t, _ in high], [t for _, t, _ in low]).pvalue)
    assert pair.p < 0.001
    assert pair.sentence.startswith("shrinknets: median 2.00 points above fixed, 95 % interval 1.")
    assert pair.sentence.endswith(", with 4.1 times fewer parameters")


def test_equal_arms_are_not_told_apart() -> None:
    same = [(0.9, 0.95 + 0.001 * i, 1000) for i in range(6)]
    pair = two_arms(same, same).pairs[0]
    assert pair.low < 0 < pair.high
    assert pair.p > 0.9
    assert "median level with fixed" in pair.sentence
    assert "which includes 0" in pair.sentence
    assert "with as many parameters" in pair.sentence


def test_arms_without_any_variation_are_compared_without_a_warning() -> None:
    pair = two_arms([(0.9, 0.9, 10)] * 3, [(0.9, 0.9, 5)] * 3).pairs[0]
    assert (pair.difference, pair.p, pair.spread_p) == (0.0, 1.0, None)
    assert pair.sentence.endswith("with 2.0 times more parameters")


def test_the_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        low, high = median_interval(rng.normal(1.0, 1, 25), rng.normal(0.0, 1, 25), seed=seed)
        covered += low <= 1.0 <= high
    assert 52 <= covered <= 60


def test_the_order_of_the_rows_changes_nothing() -> None:
    trials, history = evaluation(trials=6)
    shuffled = trials.groupby("arm", sort=False, group_keys=False)[list(trials.columns)].apply(lambda g: g.iloc[::-1])
    assert compare(shuffled, history.iloc[::-1]) == compare(trials, history)


def test_spreads_are_tested_as_brown_and_forsythe_do() -> None:
    wide, narrow = np.linspace(0.5, 0.9, 20), np.linspace(0.69, 0.71, 20)
    assert spread_test([wide, narrow]) == pytest.approx(stats.levene(wide, narrow, center="median").pvalue)
    assert (spread_test([wide, narrow]) or 1) < 1e-4
    assert spread_test([np.full(5, 0.3), np.full(5, 0.4)]) is None
    assert spread_test([wide, np.array([0.3, 0.4])]) is None, "two values say nothing about a spread"


@pytest.mark.parametrize(("trials", "said"), [(2, True), (5, True), (6, False)])
def test_intervals_of_few_trials_are_said_to_be_too_narrow(trials: int, said: bool) -> None:
    notes = compare(*evaluation(trials=trials, arms=["shrinknets", "fixed"])).notes
    assert any("fewer than 6 finished trials (shrinknets, fixed)" in note for note in notes) is said


def test_half_of_the_trials_reach_the_threshold_by_an_epoch() -> None:
    trials = trials_of("shrinknets", [(0.9, 0.9, 10)] * 4)
    reached_in = {0: 2, 1: 5, 2: 3, 3: None}
    history = pd.DataFrame(
        [
            {"arm": "shrinknets", "trial_id": trial, "epoch": epoch, "val_accuracy": 0.9 if epoch == at else 0.5}
            for trial, at in reached_in.items()
            for epoch in range(1, 7)
        ]
    )
    arm = compare(trials, history, threshold=0.85).arms[0]
    assert (arm.half_epoch, arm.reached) == (3, 0.75)
    nobody = compare(trials, history, threshold=0.95).arms[0]
    assert (nobody.half_epoch, nobody.reached) == (None, 0.0)


def test_the_default_threshold_is_reached_by_half_of_the_trials_of_every_arm() -> None:
    comparison = compare(*evaluation(trials=9))
    assert all(arm.half_epoch is not None and (arm.reached or 0) >= 0.5 for arm in comparison.arms)


def test_reaching_the_baselines_best_costs_trials_and_what_failed_trials_spent() -> None:
    sizing = trials_of("shrinknets", [(0.99, 0.99, 10), (0.80, 0.80, 10), (0.70, 0.70, 10)])
    failed = trials_of("shrinknets", [(math.nan, math.nan, 10)], first_id=50).assign(state="FAIL", number=3)
    fixed = trials_of("fixed", [(0.9, 0.9, 10), (0.8, 0.95, 10)], first_id=100)
    reach = compare(pd.concat([sizing, failed, fixed]), NO_EPOCHS).reaches[0]
    assert (reach.baseline, reach.target, reach.baseline_trials, reach.baseline_flops) == ("fixed", 0.9, 2, 200)
    # Best of 2 of (0.99, 0.80, 0.70) is (0.99 + 0.99 + 0.80) / 3; four trials' FLOPs are paid by three.
    assert reach.trials == 2
    assert reach.flops == pytest.approx(2 * 400 / 3)


def test_the_baseline_to_reach_is_the_one_that_comes_furthest() -> None:
    sizing = trials_of("shrinknets", [(0.9, 0.93, 10)] * 2)
    l2 = trials_of("fixed-l2", [(0.99, 0.90, 10), (0.5, 0.96, 10)], first_id=50)
    fixed = trials_of("fixed", [(0.9, 0.92, 10), (0.5, 0.5, 10)], first_id=100)
    reach = compare(pd.concat([sizing, l2, fixed]), NO_EPOCHS).reaches[0]
    assert (reach.baseline, reach.target, reach.trials) == ("fixed", 0.92, 1)


def test_a_sizing_arm_that_never_reaches_the_baselines_best_says_so() -> None:
    reach = two_arms([(0.8, 0.8, 10)] * 3, [(0.9, 0.9, 10)] * 3).reaches[0]
    assert (reach.trials, reach.flops) == (None, None)


def test_a_regression_speaks_of_r_squared() -> None:
    trials = pd.concat([trials_of("shrinknets", [(0.9, 0.91, 5)] * 3), trials_of("fixed", [(0.9, 0.9, 10)] * 3, 9)])
    pair = compare(trials, NO_EPOCHS, task="regression").pairs[0]
    assert pair.sentence.startswith("shrinknets: median 0.010 R² above fixed")
