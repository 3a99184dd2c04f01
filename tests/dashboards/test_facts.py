"""An evaluation in a few lines: what its arms draw, and what they take from one another."""

from __future__ import annotations

from dashboards.facts import facts
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
