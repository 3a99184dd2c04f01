"""Which pruner holds for which arm of a plan, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna import pruners

from sizer.errors import InputError
from studies.pruning import create, pruner_of
from tests.studies.sweeps import ARMS, small_plan

DAS = {"method": "auto-sizing", "alpha": {"low": 1e-6, "high": 1e-3}}


@pytest.mark.parametrize(
    ("pruner", "says"),
    [
        ("hyperbnd", "unknown pruner 'hyperbnd'; there are: hyperband, "),
        ("wilcoxon", "unknown pruner 'wilcoxon'"),
        (3, 'must be a name such as "hyperband", or { name = "hyperband", ... }, got 3'),
        ({"reduction_factor": 3}, "name is missing from the plan"),
        ({"name": "none", "patience": 3}, "none takes no arguments, got patience"),
        ({"name": "median", "warmup": 3}, "unknown argument of median 'warmup'; there are: n_warmup_steps, "),
        ({"name": "percentile"}, "percentile is missing: percentile needs it"),
        ({"name": "threshold"}, "threshold: Either lower or upper must be specified."),
        ({"name": "threshold", "lower": "0.1"}, "lower: should be a valid number, got '0.1'"),
        ({"name": "threshold", "lower": math.nan}, "lower: should be a finite number, got nan"),
        ({"name": "hyperband", "min_resource": 1.5}, "min_resource: should be a valid integer, got 1.5"),
        ({"name": "hyperband", "min_resource": 3}, "min_resource: hyperband would prune nothing in 3 epochs, got 3"),
        ({"name": "hyperband", "max_resource": 3}, "max_resource: hyperband goes by the epochs of the plan; leave"),
        ({"name": "hyperband", "reduction_factor": 1}, "hyperband: The value of `reduction_factor` is 1, but must"),
    ],
)
def test_a_pruner_that_makes_no_sense_is_one_line(pruner: Any, says: str) -> None:
    for where, values in (
        ("pruner", {"pruner": pruner}),
        ("arms.fixed.pruner", {"arms": {"fixed": {**ARMS["fixed"], "pruner": pruner}}}),
    ):
        with pytest.raises(InputError) as caught:
            small_plan(**values)
        assert str(caught.value).startswith((f"{where}: {says}", f"{where}.{says}"))
        assert "\n" not in str(caught.value)


def test_a_plans_pruner_is_for_baselines_that_draw_their_widths() -> None:
    arms = {
        **ARMS,
        "das": {**DAS, "learning_rate": [1e-3, 1e-4]},
        "unsized": {"method": "fixed", "widths": {"cut": 0}},
        "free": {"method": "fixed", "widths": {"low": 4, "high": 16}, "pruner": "none"},
        "own": {"method": "fixed", "widths": {"low": 4, "high": 16}, "pruner": {"name": "median", "n_min_trials": 2}},
        "sizing": {**DAS, "pruner": "median", "learning_rate": [1e-3, 1e-4]},
    }
    spec = small_plan(pruner="hyperband", arms=arms).spec()
    assert {arm: given["name"] for arm in spec["arms"] if (given := pruner_of(spec, arm))} == {
        "fixed": "hyperband", "own": "median", "sizing": "median"}  # fmt: skip
    assert spec["arms"]["own"]["pruner"] == {"name": "median", "n_min_trials": 2}


def test_a_plan_without_a_pruner_is_the_plan_that_it_was() -> None:
    assert small_plan(pruner="none").spec() == small_plan().spec()
    assert "pruner" not in str(small_plan().spec())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pruner": "median", "folds": 2}, "pruner: every point is wanted in all 2 folds; leave out median"),
        (
            {"pruner": "median", "arms": {"fixed": ARMS["fixed"], "das": {**DAS, "match": "fixed"}}},
            'pruner: das takes something from fixed, which must not depend on what was pruned; give fixed pruner = "n',
        ),
        (
            {"arms": {"das": {**DAS, "pruner": "median"}, "like": {"method": "fixed", "widths": {"mean_of": "das"}}}},
            "arms.das.pruner: like takes something from das, which",
        ),
        (
            {"arms": {"unsized": {"method": "fixed", "widths": {"cut": 0}, "pruner": "median"}}},
            "arms.unsized.pruner: unsized draws nothing, so that median would pick lucky seeds; leave it out",
        ),
    ],
)
def test_where_pruning_would_spoil_a_result_it_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        small_plan(**values)
    assert str(caught.value).startswith(says)


def test_brackets_end_with_the_epochs_of_the_arm() -> None:
    pruner = create({"name": "hyperband"}, 27)
    assert isinstance(pruner, pruners.HyperbandPruner)
    assert pruner._max_resource == 27
