"""Removing units gives what Torch-Pruning (Fang et al.: DepGraph: towards any structural pruning, 2023) gives.

It supports every family here. It does not know units that are more than one row, so it is told all rows of a head.
"""

from __future__ import annotations

import copy
from random import Random

import pytest
import torch
import torch_pruning
from torch import nn

import sizer
from sizer import cost, dimensions, networks
from sizer.methods import create
from tests.sizer.pieces import disturb

IMAGE = (3, 16, 16)


@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")  # the ViT's positions, which stay as they are
@pytest.mark.parametrize("network", [name for name in networks.names() if networks.layered(name)])
def test_the_same_units_removed_leave_the_same_network(network: str) -> None:
    torch.manual_seed(0)
    draw = Random(0)
    mine = networks.build(network, IMAGE, 5, [3 + at % 4 for at in range(len(networks.layers(network)))]).eval()
    disturb(mine)
    theirs, x = copy.deepcopy(mine), torch.randn(2, *IMAGE)
    net = sizer.attach(mine, x, create("fixed"))
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=x)
    for layer, width in net.widths.items():
        group, producer = net.group(layer), theirs.get_submodule(layer)
        units = sorted(draw.sample(range(width), draw.randint(1, width - 1)))
        row = next(slot for slot in group.roles("row") if slot.ref.path == f"{layer}.weight")
        rows = dimensions.positions(row.units, group.atom)[units].flatten().tolist()
        linear = isinstance(producer, nn.Linear)
        cut = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
        net.remove(layer, units)
        graph.get_pruning_group(producer, cut, idxs=sorted(rows)).prune()
    assert cost.parameters(mine) == cost.parameters(theirs)
    assert cost.parameters(mine) < cost.parameters(networks.build(network, IMAGE, 5))
    with torch.no_grad():
        torch.testing.assert_close(net(x), theirs(x), rtol=1e-5, atol=1e-5)
