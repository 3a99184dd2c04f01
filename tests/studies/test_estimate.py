"""A dry run trains the smallest and the largest network of every arm for some steps, and nothing else."""

from __future__ import annotations

import torch

from studies.estimate import dry_run
from tests.studies.sweeps import ARMS, small_plan


def test_every_arm_has_both_its_ends() -> None:
    arms = {**ARMS, "fixed": {**ARMS["fixed"], "depth": {"low": 1, "high": 3}, "epochs": 6}}
    state = torch.random.get_rng_state()
    sizing, fixed = dry_run(small_plan(widths=[50], arms=arms))
    assert torch.equal(state, torch.random.get_rng_state())
    assert (sizing.smallest.widths, sizing.largest.widths) == ({"dense1": 5}, {"dense1": 50})
    assert fixed.smallest.widths == {"dense1": 4}
    assert fixed.largest.widths == {"dense1": 16, "dense2": 16, "dense3": 16}
    assert fixed.largest.parameters == 64 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 10 + 10
    assert fixed.largest.flops == 2 * (64 * 16 + 2 * 16 * 16 + 16 * 10)
    assert (fixed.trials, fixed.epochs, fixed.differs) == (2, 6, ["epochs: 6"])
    assert sizing.draws == "lambda 0.001..0.01 (random)"
    assert fixed.draws == "widths 4..16, depth 1..3 (random)"
    for arm in (sizing, fixed):
        assert arm.seconds == (2 * arm.smallest.seconds, 2 * arm.largest.seconds)
        assert min(arm.seconds) > 0
        assert arm.largest.memory > 10**7
