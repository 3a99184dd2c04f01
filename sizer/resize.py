"""Keeping and growing units in place: parameters, buffers, gradients, optimiser state and module attributes.

A smaller tensor assigned to ``parameter.data`` breaks the next backward pass of a loss that is alive. So every resized
parameter is a new one, set on all modules that own it and put in the place of the old one in the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer import dimensions, layout
from sizer.dimensions import Atom, Dim
from sizer.groups import Group, Slot, TensorRef

Fill = Callable[[Slot, Tensor], None]
"""Writes the entries of grown units into zeros: of the slot's tensor, as many as are new along its dimension."""

KERNEL = 4
"""From so many entries on, copying kernels one by one beats copying rows, then columns."""


@dataclass(frozen=True)
class _Entries:
    """What becomes of one dimension: the entries that it will have, as those that it has; -1 for new ones."""

    kept: Tensor
    new: int
    at_end: bool

    @classmethod
    def of(cls, units: Dim, atoms: dict[Atom, Tensor]) -> _Entries:
        entries = dimensions.resized(units, atoms)
        fresh = entries < 0
        new = int(fresh.sum())
        at_end = bool(fresh[len(entries) - new :].all()) and len(entries) - new == dimensions.size(units)
        return cls(entries, new, at_end)


@dataclass(frozen=True)
class _Step:
    """One dimension of a tensor, and what becomes of it."""

    slot: Slot
    entries: _Entries

    def apply(self, tensor: Tensor, fill: Fill | None) -> Tensor:
        dim, kept, new = self.slot.dim, self.entries.kept.to(tensor.device), self.entries.new
        if not new:
            return tensor.index_select(dim, kept)
        fresh = tensor.new_zeros((*tensor.shape[:dim], new, *tensor.shape[dim + 1 :]))
        if fill is not None:
            fill(self.slot, fresh)
        joined = torch.cat((tensor, fresh), dim)
        if self.entries.at_end:
            return joined
        added = torch.arange(tensor.shape[dim], joined.shape[dim], device=tensor.device)
        return joined.index_select(dim, kept.masked_scatter(kept < 0, added))


def resize(
    chosen: dict[Group, Tensor],
    fill: Fill | None = None,
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> None:
    """Gives groups other units; all of it or, where anything fails, nothing.

    Args:
        chosen: for each group its units afterwards, at least one: int64 indices of those it has, -1 for a new one.
        fill: gives the entries of new units; optimiser state starts at 0 there.
        optimizers: whose state follows.
        copies: modules with the same submodules, such as averages of the network, that follow, too; new units are there
            what they are in the network.
    """
    atoms = {group.atom: units.cpu() for group, units in chosen.items()}
    steps = _steps(chosen, atoms)
    optimizers = list(optimizers)
    undo: list[Callable[[], None]] = []
    with torch.no_grad():
        news = {ref: _follow(ref.tensor, parts, fill) for ref, parts in steps.items()}
        states = [
            (optimizer, ref.tensor, news[ref], _states(optimizer.state[ref.tensor], ref.tensor, parts))
            for ref, parts in steps.items()
            for optimizer in optimizers
            if ref.tensor in optimizer.state
        ]
        places = [(module, name, news[ref]) for ref in steps for module, name in ref.owners]
        for copy in copies:
            places += [(*place, value) for place, value in _in_copy(copy, steps, news)]
    try:
        _swap(steps, news, states, places, optimizers, undo)
        for atom, units in atoms.items():
            before = atom.size
            atom.size = len(units)
            undo.append(partial(setattr, atom, "size", before))
        for attribute in dict.fromkeys(a for group in chosen for a in group.attributes):
            before = getattr(attribute.module, attribute.name)
            setattr(attribute.module, attribute.name, dimensions.size(attribute.units))
            undo.append(partial(setattr, attribute.module, attribute.name, before))
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def keep(kept: dict[Group, Tensor], optimizers: Iterable[Optimizer] = ()) -> None:
    """Removes every unit but those of ``kept``: for each group the indices that stay, int64 of shape (k,), k >= 1."""
    resize(kept, None, optimizers)


def grow(counts: dict[Group, int], fill: Fill, optimizers: Iterable[Optimizer] = ()) -> None:
    """Appends ``counts[group]`` units to each group."""
    resize({group: appended(group, count) for group, count in counts.items()}, fill, optimizers)


def appended(group: Group, count: int) -> Tensor:
    """All units of a group and ``count`` new ones, for ``resize``."""
    return torch.cat((torch.arange(group.width), torch.full((count,), -1)))


def _steps(chosen: dict[Group, Tensor], atoms: dict[Atom, Tensor]) -> dict[TensorRef, list[_Step]]:
    found: dict[TensorRef, list[_Step]] = {}
    known: dict[Dim, _Entries] = {}
    for slot in dict.fromkeys(slot for group in chosen for slot in group.slots):
        entries = slot.ref.tensor.shape[slot.dim]
        if entries != dimensions.size(slot.units):
            raise RuntimeError(f"{slot.ref.path} has {entries} entries in dimension {slot.dim}, not what was traced")
        inside = dimensions.atoms(slot.units)
        if inside not in known:
            known[inside] = _Entries.of(inside, atoms)
        found.setdefault(slot.ref, []).append(_Step(slot, known[inside]))
    # columns last: a new unit listens to other new units as little as old ones do
    return {ref: sorted(steps, key=lambda step: step.slot.role == "column") for ref, steps in found.items()}


def _resized(tensor: Tensor, steps: list[_Step], fill: Fill | None) -> Tensor:
    return layout.like(_chosen(tensor, steps, fill), tensor)


def _chosen(tensor: Tensor, steps: list[_Step], fill: Fill | None) -> Tensor:
    if len(steps) == 2 and not any(step.entries.new for step in steps):
        return _crossing(tensor, *sorted(steps, key=lambda step: step.slot.dim))
    for step in steps:
        tensor = step.apply(tensor, fill)
    return tensor


def _crossing(tensor: Tensor, first: _Step, second: _Step) -> Tensor:
    """What stays of two dimensions at once: where they lie side by side, kernels are copied in one go."""
    rows, columns = (step.entries.kept.to(tensor.device) for step in (first, second))
    inner = tensor[0, 0].numel()
    if (first.slot.dim, second.slot.dim) != (0, 1) or inner < KERNEL or not tensor.is_contiguous():
        return tensor.index_select(first.slot.dim, rows).index_select(second.slot.dim, columns)
    places = (rows[:, None] * tensor.shape[1] + columns).flatten()
    kernels = tensor.view(-1, inner).index_select(0, places)
    return kernels.view(len(rows), len(columns), *tensor.shape[2:])


def _follow(old: Tensor, steps: list[_Step], fill: Fill | None) -> Tensor:
    """The tensor that takes the place of ``old``: a parameter where that is one, with its gradient."""
    new = _resized(old.detach(), steps, fill)
    if not isinstance(old, nn.Parameter):
        return new
    parameter = nn.Parameter(new, requires_grad=old.requires_grad)
    if old.grad is not None:
        parameter.grad = _resized(old.grad, steps, None)
    return parameter


def _states(state: dict[str, Any], old: Tensor, steps: list[_Step]) -> dict[str, Any]:
    """An optimiser's state: what has the parameter's shape, or 1 in some of its dimensions (Adafactor), follows."""

    def followed(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != old.dim():
            return value
        if any(mine not in (theirs, 1) for mine, theirs in zip(value.shape, old.shape, strict=True)):
            return value
        whole = [step for step in steps if value.shape[step.slot.dim] == old.shape[step.slot.dim]]
        return _resized(value, whole, None)

    return {key: followed(value) for key, value in state.items()}


def _in_copy(
    copy: nn.Module, steps: dict[TensorRef, list[_Step]], news: dict[TensorRef, Tensor]
) -> list[tuple[tuple[nn.Module, str], Tensor]]:
    """What takes the places of a copy's tensors."""
    found: list[tuple[tuple[nn.Module, str], Tensor]] = []
    for ref, parts in steps.items():
        owner, _, name = ref.path.rpartition(".")
        old = getattr(copy.get_submodule(owner), name)
        new = _follow(old, parts, None)
        missing = _new_entries(new, parts)
        new.data[missing] = news[ref].detach().to(new.device, new.dtype)[missing]
        homes = [
            (module, key)
            for module in copy.modules()
            for key, value in [*module._parameters.items(), *module._buffers.items()]
            if value is old
        ]
        found += [(home, new) for home in homes]
    return found


def _new_entries(tensor: Tensor, steps: list[_Step]) -> Tensor:
    """Which entries of a resized tensor are new: bool of its shape."""
    mask = torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
    for step in steps:
        shape = [1] * tensor.dim()
        shape[step.slot.dim] = -1
        mask |= (step.entries.kept < 0).to(tensor.device).view(shape)
    return mask


def _swap(
    steps: dict[TensorRef, list[_Step]],
    news: dict[TensorRef, Tensor],
    states: list[tuple[Optimizer, Tensor, Tensor, dict[str, Any]]],
    places: list[tuple[nn.Module, str, Tensor]],
    optimizers: list[Optimizer],
    undo: list[Callable[[], None]],
) -> None:
    """Puts the new tensors in the places of the old ones; ``undo`` gets how to take each step back."""
    replaced = {id(ref.tensor): new for ref, new in news.items()}
    for optimizer in optimizers:
        for options in optimizer.param_groups:
            undo.append(partial(options.__setitem__, "params", options["params"]))
            options["params"] = [replaced.get(id(p), p) for p in options["params"]]
    for optimizer, old, new, state in states:
        undo.append(partial(optimizer.state.pop, new, None))
        undo.append(partial(optimizer.state.__setitem__, old, optimizer.state[old]))
        del optimizer.state[old]
        optimizer.state[new] = state
    for module, name, value in places:
        held: dict[str, Any] = module._parameters if isinstance(value, nn.Parameter) else module._buffers
        undo.append(partial(held.__setitem__, name, held[name]))
        held[name] = value
