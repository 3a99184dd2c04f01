"""A network as it stood, with its optimisers' state: taken before a step that may have to be taken back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sizer import layout
from sizer.net import Net


@dataclass(frozen=True)
class Snapshot:
    """What ``restore`` needs.

    Attributes:
        widths: layer -> width.
        collapsed: as ``net.collapsed``.
        tensors: ``module/NAME`` and ``copy-N/NAME``: parameters and buffers; ``optimizer-N/KEY/NAME``: states.
        numbers: states that are no tensors, named alike.
    """

    widths: dict[str, int]
    collapsed: list[str]
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]

    def notes(self) -> dict[str, Any]:
        """All but the tensors, as it stands in JSON."""
        return {"widths": self.widths, "collapsed": self.collapsed, "numbers": self.numbers}

    @classmethod
    def of(cls, notes: dict[str, Any], tensors: dict[str, Tensor]) -> Snapshot:
        """The reverse of ``notes``."""
        return cls(notes["widths"], notes["collapsed"], tensors, notes["numbers"])


def take(net: Net) -> Snapshot:
    """Copies widths, parameters, buffers, gates, optimiser state and the copies that follow."""
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(net)}
    numbers: dict[str, Any] = {}
    for name, value in _states(net):
        if isinstance(value, Tensor):
            tensors[name] = value.clone()
        else:
            numbers[name] = copy.deepcopy(value)
    return Snapshot(net.widths, list(net.collapsed), tensors, numbers)


@torch.no_grad()
def restore(net: Net, snapshot: Snapshot) -> None:
    """Brings a network back to a snapshot of it, bit for bit, whatever its widths became since.

    What says how to train (learning rates, schedules, ``net.epoch``, ``net.steps``) goes on.
    """
    net.resize_to(snapshot.widths, blank=True)
    for name, tensor in _tensors(net):
        if name in snapshot.tensors:  # not of a copy that follows since then
            tensor.copy_(snapshot.tensors[name])
    states: dict[str, dict[str, Any]] = {}
    for full, value in [*snapshot.tensors.items(), *snapshot.numbers.items()]:
        kind, _, rest = full.partition("/")
        if kind.startswith("optimizer-"):
            key, _, name = rest.partition("/")
            states.setdefault(f"{kind}/{name}", {})[key] = copy.deepcopy(value)
    for at, optimizer in enumerate(net.optimizers):
        for name, parameter in net.module.named_parameters():
            optimizer.state.pop(parameter, None)
            if f"optimizer-{at}/{name}" in states:
                state = states[f"optimizer-{at}/{name}"]
                optimizer.state[parameter] = {key: _beside(value, parameter) for key, value in state.items()}
    net.collapsed = list(snapshot.collapsed)


def _tensors(net: Net) -> Iterator[tuple[str, Tensor]]:
    modules: dict[str, nn.Module] = {"module": net.module}
    modules |= {f"copy-{at}": module for at, module in enumerate(net.copies)}
    for kind, module in modules.items():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            yield f"{kind}/{name}", tensor


def _states(net: Net) -> Iterator[tuple[str, Any]]:
    for at, optimizer in enumerate(net.optimizers):
        for name, parameter in net.module.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                yield f"optimizer-{at}/{key}/{name}", value


def _beside(value: Any, parameter: Tensor) -> Any:
    """A state's entry on the parameter's device, where it has the parameter's size; counts of steps stay theirs."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    there = value.to(parameter.device)
    return layout.like(there, parameter) if there.dim() == parameter.dim() else there
