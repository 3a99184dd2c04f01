"""What searches come to for the same FLOPs: what counts, what is chosen, and when an accuracy is reached."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from studies.spending import Seed, Spending, Spread


def seed(*trials: tuple[float, str, list[tuple[float, int]]], arm: str = "a", shift: int = 0) -> Seed:
    """Trials of so many FLOPs, of a state, and of each epoch validation accuracy and parameters."""
    rows, history = [], []
    for number, (flops, state, epochs) in enumerate(trials):
        trial_id = shift + number
        for at, (accuracy, parameters) in enumerate(epochs, start=1):
            history.append({
                "arm": arm, "trial_id": trial_id, "epoch": at, "val_accuracy": accuracy,
                "test_accuracy": accuracy - 0.1, "parameters": parameters, "flops": 2 * parameters,
                "training_flops": flops * at / len(epochs),
            })  # fmt: skip
        best = max(accuracy for accuracy, _ in epochs)
        rows.append({"arm": arm, "trial_id": trial_id, "number": number, "state": state, "training_flops": flops,
                     "val_accuracy": best, "test_accuracy": best - 0.1})  # fmt: skip
    return Seed(pd.DataFrame(rows), pd.DataFrame(history))


DONE = "COMPLETE"


def test_trials_count_in_their_order_as_long_as_all_have_spent_no_more() -> None:
    epochs = [(0.6, 1), (0.7, 1), (0.9, 1)]
    found = seed((10.0, DONE, [(0.5, 1)]), (30.0, DONE, epochs), (5.0, DONE, [(0.7, 1)]))
    cut = found.within(39.9)
    assert list(cut.trials["number"]) == [0, 1], "the third is not asked for before the second has ended"
    assert list(cut.history["val_accuracy"]) == [0.5, 0.6, 0.7], "of which the epochs count that are paid for"
    assert list(found.within(40.0).history["val_accuracy"]) == [0.5, 0.6, 0.7, 0.9]
    assert list(found.within(19.9).trials["number"]) == [0]
    assert found.within(9.0).chosen() is None
    assert found.spent == 45


def test_validation_chooses_among_all_epochs_that_fit() -> None:
    found = seed((10.0, DONE, [(0.5, 50), (0.8, 40), (0.7, 10)]), (10.0, DONE, [(0.6, 10)]))
    best, small = found.chosen(), found.chosen(parameters=20)
    assert best is not None
    assert small is not None
    assert (best["val_accuracy"], small["val_accuracy"]) == (0.8, 0.7)
    assert found.chosen(flops=19) is None


def test_a_pruned_trial_costs_and_gives_no_network() -> None:
    found = seed((10.0, "PRUNED", [(0.9, 1)]), (10.0, DONE, [(0.6, 1)]))
    best = found.chosen()
    assert best is not None
    assert best["val_accuracy"] == 0.6
    assert found.until(0.6) == 20
    assert found.until(0.9) == math.inf


def test_an_accuracy_is_reached_at_the_epoch_that_has_it() -> None:
    found = seed((10.0, DONE, [(0.5, 1), (0.6, 1)]), (40.0, DONE, [(0.6, 1), (0.7, 1), (0.8, 1), (0.9, 1)]))
    assert [found.until(level) for level in (0.5, 0.6, 0.7, 0.95)] == [5, 10, 30, math.inf]


def test_all_arms_are_cut_to_what_the_poorest_has_spent() -> None:
    def both(rich: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        a = seed(*[(10.0, DONE, [(0.5 + 0.1 * at, 1)]) for at in range(rich)])
        b = seed(*[(10.0, DONE, [(0.5, 1)])] * 2, arm="b", shift=100)
        return pd.concat([a.trials, b.trials]), pd.concat([a.history, b.history])

    found = Spending.of([both(4), both(3)], 1e9)
    assert found.flops == 20
    assert [len(each.trials) for each in found.arms["a"]] == [2, 2]
    assert found.chosen("a", "test_accuracy") == pytest.approx([0.5, 0.5])
    assert found.chosen("a", "test_accuracy", parameters=0) == [-math.inf, -math.inf]


def test_what_it_costs_to_be_as_good_is_told_seed_by_seed() -> None:
    def both(first: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        a = seed((10.0, DONE, [(0.5, 1)]), (10.0, DONE, [(first, 1)]))
        b = seed((10.0, DONE, [(0.6, 1)]), (10.0, DONE, [(0.7, 1)]), arm="b", shift=100)
        return pd.concat([a.trials, b.trials]), pd.concat([a.history, b.history])

    found = Spending.of([both(0.8), both(0.6), both(0.5)], 20.0)
    assert found.until_as_good("a", "b", 0.5) == [1.0, 1.0, math.inf]
    assert found.until_as_good("a", "b", 1.0) == [1.0, math.inf, math.inf]
    assert found.until_as_good("b", "b", 1.0) == [1.0] * 3
    assert found.until_as_good("b", "b", 0.5) == [0.5] * 3


def test_an_arm_without_a_network_is_left_out_and_cuts_nobody() -> None:
    good, bad = seed((10.0, DONE, [(0.5, 1)])), seed((1.0, "FAIL", [(0.5, 1)]), arm="b", shift=100)
    found = Spending.of([(pd.concat([good.trials, bad.trials]), pd.concat([good.history, bad.history]))], 50.0)
    assert list(found.arms) == ["a"]
    assert found.flops == 10


def test_a_median_over_seeds_counts_those_that_have_nothing() -> None:
    assert Spread.over([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.over([1.0, math.inf, 3.0]) == Spread(3.0, 1.0, 3.0, 2)
    assert Spread.over([-math.inf, 2.0, 3.0]) == Spread(2.0, 2.0, 3.0, 2)
    none = Spread.over([1.0, math.inf])
    assert math.isnan(none.median)
    assert none.of == 1
