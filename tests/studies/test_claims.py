"""A paper's claims beside what came of them: each kind held by frames in which the answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.claims import AS_PUBLISHED, MISSED, NOT_SETTLED, Claim, Evaluated, claims, interval_of_median, ordered
from studies.papers import Published
from tests.studies.test_equal import SPEC, frames

Row = tuple[str, float, list[tuple[float, int]]]


def evaluated(*rows: Row, cell: str = "", methods: dict[str, str] | None = None, **spec: Any) -> Evaluated:
    """Arms of trials: the arm, the knob, and accuracy and units of each epoch; a unit is 10 parameters, 20 FLOPs."""
    history, trials = [], []
    for number, (arm, knob, epochs) in enumerate(rows):
        own = [
            {
                "arm": arm, "trial_id": number, "number": number, "knob": knob, "epoch": at, "val_accuracy": accuracy,
                "test_accuracy": accuracy - 0.01, "parameters": 10 * units, "flops": 20 * units,
                "training_flops": 100.0 * at, "widths": {"dense1": units - 1, "dense2": 1},
            }
            for at, (accuracy, units) in enumerate(epochs, start=1)
        ]  # fmt: skip
        best = max(own, key=lambda epoch: epoch["val_accuracy"])
        history += own
        fold = number % spec["folds"] if spec.get("folds") else None
        point = number // spec.get("folds", 1)
        trials.append({**best, "state": "COMPLETE", "status": "complete", "stage": "", "fold": fold, "point": point})
    arms = dict.fromkeys(arm for arm, _, _ in rows)
    kinds = {"sized": "shrinknets", "other": "auto-sizing", **(methods or {})}
    plan = {"arms": {arm: {"method": kinds.get(arm, "fixed")} for arm in arms}, "epochs": 9, **spec}
    data = {"task": "classification", "test": 1000}
    return Evaluated(cell, plan, data, pd.DataFrame(trials), pd.DataFrame(history))


def of(published: dict[str, Any], found: Evaluated) -> list[Claim]:
    return claims(Published.model_validate({"source": "a paper", **published}, strict=False), found)


def scores(arm: str, *accuracies: float) -> list[Row]:
    return [(arm, 1e-3, [(accuracy, 10)]) for accuracy in accuracies]


HIGH, LOW = (0.90, 0.91, 0.92, 0.905, 0.915, 0.91), (0.80, 0.81, 0.82, 0.805, 0.815, 0.81)


@pytest.mark.parametrize(
    ("sized", "fixed", "verdict"), [(HIGH, LOW, AS_PUBLISHED), (LOW, HIGH, MISSED), (HIGH, HIGH, NOT_SETTLED)]
)
def test_a_difference_of_medians_counts_where_chance_does_not_explain_it(
    sized: tuple[float, ...], fixed: tuple[float, ...], verdict: str
) -> None:
    found = evaluated(*scores("fixed", *fixed), *scores("sized", *sized))
    (claim,) = of({"arms": {"fixed": {"accuracy": 88}, "sized": {"accuracy": 89.5}}}, found)
    assert claim.what == "sized less fixed, test accuracy"
    assert claim.published == "+1.50 points"
    assert claim.ours == f"{100 * (np.median(sized) - np.median(fixed)):+.2f} points"
    assert claim.verdict == verdict


def test_a_published_loss_is_held_too() -> None:
    found = evaluated(*scores("fixed", *HIGH), *scores("sized", *LOW))
    (claim,) = of({"arms": {"sized": {"accuracy": 85}, "fixed": {"accuracy": 89}}}, found)
    assert claim.verdict == AS_PUBLISHED


@pytest.mark.parametrize(("other", "verdict"), [(0.80, AS_PUBLISHED), (0.899, NOT_SETTLED), (0.97, MISSED)])
def test_over_folds_the_test_of_the_paper_decides(other: float, verdict: str) -> None:
    found = evaluated(*scores("sized", 0.90, 0.90), *scores("fixed", other, other), folds=2)
    (claim,) = of({"arms": {"sized": {"accuracy": 77}, "fixed": {"accuracy": 72.9}}}, found)
    assert claim.verdict == verdict
    assert claim.interval.startswith("p ")


def test_over_folds_each_of_them_must_have_the_sign() -> None:
    found = evaluated(*scores("sized", 0.98, 0.80), *scores("fixed", 0.80, 0.81), folds=2)
    (claim,) = of({"arms": {"sized": {"accuracy": 77}, "fixed": {"accuracy": 72.9}}}, found)
    assert claim.ours == "+8.50 points"
    assert claim.interval.endswith("; by fold +18.00, -1.00")
    assert claim.verdict == NOT_SETTLED


@pytest.mark.parametrize(
    ("sized", "fixed", "verdict"), [(0.001, 0.1, AS_PUBLISHED), (0.1, 0.001, MISSED), (0.1, 0.11, NOT_SETTLED)]
)
def test_accuracies_vary_less_where_the_test_of_spreads_says_so(sized: float, fixed: float, verdict: str) -> None:
    steps = (-2, -1, -1, 0, 0, 1, 1, 2)
    found = evaluated(
        *scores("sized", *(0.5 + sized * step for step in steps)),
        *scores("fixed", *(0.5 + fixed * step for step in steps)),
    )
    figures = {"sized": {"accuracy": 89}, "fixed": {"accuracy": 88}}
    claim = of({"steadier": True, "arms": figures}, found)[-1]
    assert claim.ours == f"{100 * sized:.2f} and {100 * fixed:.2f} points"
    assert claim.verdict == verdict


def test_a_few_far_off_make_accuracies_vary_more_whatever_the_quartiles_say() -> None:
    sized = [0.885 + 0.0001 * at for at in range(16)] + [0.1] * 4
    fixed = [0.88 + 0.0005 * at for at in range(20)]
    figures = {"sized": {"accuracy": 89}, "fixed": {"accuracy": 88}}
    claim = of({"steadier": True, "arms": figures}, evaluated(*scores("sized", *sized), *scores("fixed", *fixed)))[-1]
    assert claim.verdict == MISSED


def test_a_handful_of_trials_settles_nothing() -> None:
    found = evaluated(*scores("fixed", *LOW[:5]), *scores("sized", *HIGH[:5]))
    figures = {"sized": {"accuracy": 89}, "fixed": {"accuracy": 88, "of": ""}}
    assert [each.verdict for each in of({"steadier": True, "arms": figures}, found)] == [NOT_SETTLED] * 2


def test_figures_of_other_data_are_told_as_that() -> None:
    found = evaluated(*scores("fixed", *LOW), *scores("sized", *HIGH))
    figures = {"sized": {"accuracy": 45.1, "of": "CIFAR-100"}, "fixed": {"accuracy": 32.4, "of": "CIFAR-100"}}
    assert of({"arms": figures}, found)[0].published == "+12.70 points (CIFAR-100)"


def reduced(found: Evaluated, **change: float) -> list[Claim]:
    return of({"against": "fixed", "arms": {"sized": {"change": change}}}, found)


def test_a_reduction_is_that_of_the_smallest_network_no_worse_than_published() -> None:
    base = [("fixed", 0.0, [(0.95, 100), (0.90, 100)])]
    ends = [(0.90, 60), (0.899, 50), (0.4, 5)]
    runs = [("sized", 10.0**at, [(0.99, 90), end]) for at, end in enumerate(ends)]
    found = evaluated(*base, *runs)
    parameters, flops = reduced(found, parameters=-30, flops=-45)
    assert parameters.ours == "-40.0 %, test +0.00 points"
    assert (parameters.verdict, flops.verdict) == (AS_PUBLISHED, MISSED)
    assert parameters.interval == "1 of 3 trials are as good"
    (claim,) = reduced(found, parameters=-30, accuracy=-0.2)
    assert claim.ours == "-50.0 %, test -0.10 points"
    assert claim.what.endswith("at -0.2 points")
    (claim,) = reduced(found, parameters=-30, accuracy=6.7)
    assert claim.published == "-30.0 %, +6.7 points"
    assert claim.ours.startswith("-40.0 %, test +0.00")
    assert claim.verdict == NOT_SETTLED, "it has no gain"


@pytest.mark.parametrize(("good", "verdict"), [(3, AS_PUBLISHED), (2, AS_PUBLISHED), (1, NOT_SETTLED), (0, MISSED)])
def test_half_of_the_trials_of_a_knob_must_be_as_good(good: int, verdict: str) -> None:
    trials = [("sized", 1e-3, [(0.91 if at < good else 0.89, 40 + at)]) for at in range(3)]
    (claim,) = reduced(evaluated(("fixed", 0.0, [(0.90, 100)]), *trials), parameters=-50)
    assert claim.verdict == verdict
    assert claim.interval == f"{good} of 3 trials are as good"
    assert claim.ours.startswith("-59.0 %" if good > 1 else "in no half")


def test_a_reduced_network_is_held_against_that_of_its_own_seed() -> None:
    runs = [("fixed", 0.0, [(0.90, 100)]), ("fixed", 0.0, [(0.70, 100)])]
    found = evaluated(*runs, ("sized", 1e-3, [(0.89, 20)]), ("sized", 1e-2, [(0.71, 40)]))
    for frame in (found.trials, found.history):
        frame.loc[frame["arm"] == "sized", "number"] -= 2
    (claim,) = reduced(found, parameters=-50)
    assert claim.ours == "-60.0 %, test +1.00 points"
    assert claim.interval == "1 of 2 trials are as good"


@pytest.mark.parametrize(("last", "verdict"), [(50, AS_PUBLISHED), (62, AS_PUBLISHED), (70, MISSED), (39, MISSED)])
def test_sizes_count_within_a_quarter_of_the_published_ones_at_the_same_epochs(last: int, verdict: str) -> None:
    found = evaluated(("sized", 1e-3, [(0.5, 100), (0.6, last)]), ("sized", 1e-2, [(0.5, 9), (0.5, 9)]))
    sizes = [{"knob": 1e-3, "epochs": [1, 2, 50], "units": [100, 50, 20]}]
    (claim,) = of({"arms": {"sized": {"sizes": sizes}}}, found)
    assert claim.what.endswith("units after epoch 1, 2"), "nobody trained for 50"
    assert (claim.published, claim.ours) == ("100, 50", f"100, {last}")
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("graph", "ours", "verdict"),
    [
        ([(50, 0.8)], "2.00 to 2.00", AS_PUBLISHED),
        ([(71, 0.8)], "1.41 to 1.41", NOT_SETTLED),  # within a quarter of the least published
        ([(100, 0.8)], "1.00 to 1.00", MISSED),
        ([(50, 0.7), (50, 0.8)], "2.00 to 2.00", NOT_SETTLED),  # for twice the training
        ([(50, 0.7)], "none is as good", MISSED),
    ],
)
def test_fewer_parameters_at_equal_score_count_where_they_took_no_more_training(
    graph: list[tuple[int, float]], ours: str, verdict: str
) -> None:
    trials, history = frames(("growing", 0, graph), ("layered", 0, [(100, 0.8)]))
    found = Evaluated("", SPEC, {"task": "regression"}, trials, history)
    claim = of({"arms": {"growing": {"ratios": [1.0, 1.56, 2.24]}}}, found)[0]
    assert (claim.published, claim.ours, claim.verdict) == ("1.00 to 2.24", ours, verdict)


@pytest.mark.parametrize(("ends", "verdict"), [((40, 30, 20), AS_PUBLISHED), ((40, 20, 30), MISSED)])
def test_units_fall_with_the_knob(ends: tuple[int, ...], verdict: str) -> None:
    found = evaluated(*(("sized", 10.0**at, [(0.5, 99), (0.4, units)]) for at, units in enumerate(ends)))
    (claim,) = of({"falls": True}, found)
    assert claim.verdict == verdict


@pytest.mark.parametrize(("end", "verdict"), [(12, AS_PUBLISHED), (14, MISSED)])
def test_arms_meet_at_the_end_wherever_they_start(end: int, verdict: str) -> None:
    found = evaluated(("sized", 1e-3, [(0.5, 99), (0.5, 10)]), ("other", 1e-3, [(0.5, 5), (0.5, end)]))
    (claim,) = of({"meets": {"within": 1.3}}, found)
    assert claim.verdict == verdict
    assert claim.ours == f"10, {end}"


def test_arms_meet_in_the_layer_that_the_paper_shows_too() -> None:
    """A total hides that one layer has what another lacks."""
    found = evaluated(("sized", 1e-3, [(0.5, 30)]), ("other", 1e-3, [(0.5, 30)]))
    found.history["widths"] = [{"conv": 10, "dense": 20}, {"conv": 20, "dense": 10}]
    both, shown = of({"meets": {"within": 1.3, "layer": "conv"}}, found)
    assert (both.verdict, both.ours) == (AS_PUBLISHED, "30, 30")
    assert (shown.verdict, shown.ours) == (MISSED, "10, 20")
    assert shown.what == "units of conv at the end, sized, other"
    assert len(of({"meets": {"within": 1.3, "layer": "elsewhere"}}, found)) == 1


@pytest.mark.parametrize(("sizes", "verdict"), [((10, 20), AS_PUBLISHED), ((20, 10), MISSED)])
def test_cells_come_in_the_published_order(sizes: tuple[int, int], verdict: str) -> None:
    cells = {"easy": {"sized": {"parameters": 100}}, "hard": {"sized": {"parameters": 200}}}
    paper = Published.model_validate({"source": "x", "order": "parameters", "cells": cells}, strict=False)
    easy, hard = (
        evaluated(("sized", 1e-3, [(0.5, units)]), cell=cell) for cell, units in zip(cells, sizes, strict=True)
    )
    claim = ordered(paper, [hard, easy])
    assert claim is not None
    assert claim.what == "mean parameters, easy < hard"
    assert claim.verdict == verdict
    assert ordered(paper, [easy]) is None


def test_arms_that_gave_no_network_claim_nothing() -> None:
    found = evaluated(*scores("sized", *HIGH))
    assert of({"arms": {"sized": {"accuracy": 90}, "fixed": {"accuracy": 89}}}, found) == []


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60))
def test_the_interval_of_a_median_has_it_in_95_of_100_cases_and_no_narrower_one_does(count: int) -> None:
    low, high = interval_of_median(list(map(float, range(count))))
    assert low + high == count - 1
    outside = int(low)
    # The median lies below the interval where at most so many of n values lie below it: n tosses of a coin.
    heads = np.random.default_rng(0).binomial(count, 0.5, 200_000)
    missed = [float(np.mean(heads <= more)) for more in (outside, outside + 1)]
    assert missed[0] <= 0.0265 or (count < 6 and outside == 0)
    assert missed[1] > 0.0235
