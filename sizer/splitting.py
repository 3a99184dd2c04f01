"""Units made of other units: copies that share their work, and averages. The outputs stay as they were."""

from __future__ import annotations

import torch
from torch import Tensor

from sizer.dimensions import positions
from sizer.groups import Group, Slot
from sizer.net import Net, fresh


def split(net: Net, parents: dict[Group, Tensor], noise: float) -> None:
    """Adds a copy of each given unit; both keep half of its outgoing weights.

    Noise keeps the two from staying equal: what is added to the parent's incoming weights is subtracted from the
    copy's, so that the outputs change by its square alone (as far as the activation is smooth).

    Args:
        net: its copies that follow are split likewise.
        parents: for each group (k,) int64 indices of its units, each once.
        noise: its standard deviation, as a share of the root mean square of the parent's weights.
    """
    net.grow_all({group: len(units) for group, units in parents.items()}, fresh(1.0, 0.0))
    for group, units in parents.items():
        for slot in group.slots:
            jitter = None
            for tensor in _tensors(net, slot):
                new, old = _entries(group, slot, len(units), units, tensor.device)
                if slot.role == "column":
                    tensor[old] *= 0.5
                tensor[new] = tensor[old]
                if slot.role == "row" and tensor.dim() > 1:
                    jitter = torch.randn_like(tensor[old]) if jitter is None else jitter
                    change = noise * _size(tensor[old], len(units)) * jitter
                    tensor[old] += change
                    tensor[new] -= change


def average(net: Net, pairs: dict[Group, Tensor]) -> None:
    """Adds a unit for each given pair: the average of what makes both, with outgoing weights of 0.

    Args:
        net: its copies that follow get the average of their own.
        pairs: for each group (k, 2) int64 indices of its units.
    """
    net.grow_all({group: len(both) for group, both in pairs.items()}, fresh(1.0, 0.0))
    for group, both in pairs.items():
        for slot in [slot for slot in group.slots if slot.role != "column"]:
            for tensor in _tensors(net, slot):
                new, first = _entries(group, slot, len(both), both[:, 0], tensor.device)
                _, second = _entries(group, slot, len(both), both[:, 1], tensor.device)
                mean = (tensor[first] + tensor[second]) / 2 if tensor.is_floating_point() else tensor[first]
                tensor[new] = mean


def _entries(group: Group, slot: Slot, count: int, units: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the last ``count`` units of a group stand in a slot, and where those given do: int64, flat."""
    where = positions(slot.units, group.atom).to(device)
    return where[group.width - count :].flatten(), where[units.to(device)].flatten()


def _tensors(net: Net, slot: Slot) -> list[Tensor]:
    """The slot's tensor in the network and in the copies that follow, its units first; to be written to."""
    owner, _, name = slot.ref.path.rpartition(".")
    tensors: list[Tensor] = [getattr(copy.get_submodule(owner), name) for copy in net.copies]
    return [tensor.detach().movedim(slot.dim, 0) for tensor in [slot.ref.tensor, *tensors]]


def _size(entries: Tensor, units: int) -> Tensor:
    """The root mean square of each unit's entries, in a shape that multiplies them."""
    own = entries.reshape(units, -1).square().mean(1).sqrt()
    return own.repeat_interleave(len(entries) // units).view(-1, *[1] * (entries.dim() - 1))
