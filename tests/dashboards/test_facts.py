"""An evaluation in a few lines: what its arms draw, and what they take from one another."""

from __future__ import annotations

from dashboards.facts import facts
from tests.studies.sweeps import ARMS, small_plan
from tests.studies.test_stages import das


def test_arms_say_what_they_take_and_stages_are_not_arms() -> None:
    said = facts(das(samples=6000).spec())
    assert said["training"] == (
        "1 point of 3 folds an arm, 1 epoch, batch 256, adam at 1e-3, seed 0, at most 6,000 samples"
    )
    assert said["dynamic"] == (
        "method auto-sizing, alpha 1e-6 .. 1e-3, learning rate of 1e-3, 4e-4, 1e-4, 1 point put first, random"
    )
    assert said["static-a"] == "method fixed, widths the mean of dynamic, learning rate of 2e-3, 1e-3"
    assert said["static-b"].startswith("method fixed, widths the mean of dynamic, uniform, ")
    assert said["l21"].startswith("method auto-sizing, alpha for as many parameters as dynamic, in 1e-6 .. 1e-3, ")
    assert said["cut"] == "method fixed, widths the plan's, less 20 %"
    assert not any("." in name for name in said)


def test_a_precision_is_said_of_the_plan_and_of_an_arm_that_differs() -> None:
    plan = small_plan(precision="bfloat16", arms={**ARMS, "fixed": {**ARMS["fixed"], "precision": "float32"}})
    said = facts(plan.spec())
    assert said["training"].endswith(", bfloat16")
    assert said["not equal"] == "fixed: precision float32 (others bfloat16)"
    own = small_plan(arms={**ARMS, "fixed": {**ARMS["fixed"], "precision": "bfloat16"}})
    assert facts(own.spec())["not equal"] == "fixed: precision bfloat16 (others float32)"


def test_paths_and_targets_say_what_draws_their_points() -> None:
    aimed = facts(small_plan(target={"params": [300, 500]}).spec())
    assert aimed["target"] == "networks of at most 300, 500 parameters"
    assert aimed["shrinknets"] == "lambda 1e-3 .. 0.01, size"
    assert aimed["fixed"].endswith(", random")
    walked = facts(small_plan(schedule="path", epochs=8).spec())
    assert walked["shrinknets"] == (
        "lambda 1e-3 .. 0.01, a path: 8 epochs, then 2 a step, and 1 of each without the penalty"
    )
    assert walked["fixed"].endswith(", random")
