"""Units that are split or averaged in any network leave its outputs as they were."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import given

from sizer import splitting
from tests.sizer.random_networks import Plan, plans
from tests.sizer.test_surgery import assert_same, attached, examples, run, some


@examples(12)
@given(plans())
def test_split_and_averaged_units_leave_the_outputs_of_random_networks(plan: Plan) -> None:
    net, inputs = attached(plan)
    draw = Random(plan.seed)
    before = [run(net, inputs), run(net, inputs, training=True)]
    chosen = {group: some(group, draw).nonzero()[:, 0] for group in net.groups}
    parents = {group: units for group, units in chosen.items() if len(units)}
    widths = net.widths
    if parents:
        splitting.split(net, parents, noise=0.0)
    assert net.widths == {group.name: widths[group.name] + len(chosen[group]) for group in net.groups}
    assert_same(before[0], run(net, inputs))
    assert_same(before[1], run(net, inputs, training=True))
    pairs = {group: torch.tensor([[0, group.width - 1]]) for group in net.groups}
    splitting.average(net, pairs)
    assert_same(before[0], run(net, inputs))
    assert_same(before[1], run(net, inputs, training=True))
