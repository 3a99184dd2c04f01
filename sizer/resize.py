"""Keeping and growing units in place: parameters, buffers, gradients, optimiser state and module attributes.

A smaller tensor assigned to ``parameter.data`` breaks the next backward pass of a loss that is alive. So every resized
parameter is a new one, set on all modules that own it and put in the place of the old one in the optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizer.groups import Group, Slot, TensorRef

Fill = Callable[[Slot, Tensor], None]
"""Writes the entries of grown units into zeros: of the slot's tensor, ``outer * count * inner`` along its dimension."""

ATTRIBUTES = {
    "row": ("out_features", "out_channels"),
    "column": ("in_features", "in_channels"),
    "scale": ("num_features",),
    "shift": ("num_features",),
    "mean": ("num_features",),
    "variance": ("num_features",),
}


@dataclass(frozen=True)
class _Change:
    """One slot's part in a resize: which units stay, and how many come."""

    slot: Slot
    width: int
    keep: Tensor | None
    grow: int

    def apply(self, tensor: Tensor, fill: Fill | None) -> Tensor:
        slot = self.slot
        entries = tensor.shape[slot.dim]
        if entries != slot.outer * self.width * slot.inner:
            raise RuntimeError(f"{slot.ref.path} has {entries} entries in dimension {slot.dim}, not what was traced")
        before, after = tensor.shape[: slot.dim], tensor.shape[slot.dim + 1 :]
        at = len(before) + 1
        parts = tensor.reshape(*before, slot.outer, self.width, slot.inner, *after)
        if self.keep is not None:
            parts = parts.index_select(at, self.keep.to(parts.device))
        if self.grow:
            fresh = parts.new_zeros((*parts.shape[:at], self.grow, *parts.shape[at + 1 :]))
            if fill is not None:
                fill(slot, fresh.flatten(at - 1, at + 1))
            parts = torch.cat((parts, fresh), at)
        return parts.reshape(*before, slot.outer * parts.shape[at] * slot.inner, *after)


def keep(kept: dict[Group, Tensor], optimizers: Iterable[Optimizer] = ()) -> None:
    """Removes every unit but those of ``kept``: for each group the indices that stay, int64 of shape (k,), k >= 1."""
    changes = [_Change(slot, group.width, index, 0) for group, index in kept.items() for slot in group.slots]
    _apply(changes, None, optimizers)
    for group, index in kept.items():
        group.width = len(index)


def grow(counts: dict[Group, int], fill: Fill, optimizers: Iterable[Optimizer] = ()) -> None:
    """Appends ``counts[group]`` units to each group; ``fill`` gives their entries, and optimiser state starts at 0."""
    changes = [_Change(slot, group.width, None, count) for group, count in counts.items() for slot in group.slots]
    _apply(changes, fill, optimizers)
    for group, count in counts.items():
        group.width += count


@torch.no_grad()
def _apply(changes: Sequence[_Change], fill: Fill | None, optimizers: Iterable[Optimizer]) -> None:
    """Computes every new tensor before it sets the first one, so that a failure leaves all as it was."""
    by_ref: dict[TensorRef, list[_Change]] = {}
    for change in changes:
        by_ref.setdefault(change.slot.ref, []).append(change)

    def resized(tensor: Tensor, steps: list[_Change], values: Fill | None) -> Tensor:
        for step in steps:
            tensor = step.apply(tensor, values)
        return tensor

    news: dict[TensorRef, Tensor] = {}
    states: list[tuple[Optimizer, Tensor, nn.Parameter, dict[str, object]]] = []
    optimizers = list(optimizers)
    for ref, steps in by_ref.items():
        old = ref.tensor
        new = resized(old.detach(), steps, fill)
        if not isinstance(old, nn.Parameter):
            news[ref] = new
            continue
        parameter = nn.Parameter(new, requires_grad=old.requires_grad)
        if old.grad is not None:
            parameter.grad = resized(old.grad, steps, None)
        news[ref] = parameter
        for optimizer in optimizers:
            if old in optimizer.state:
                state = {
                    key: resized(value, steps, None)
                    if isinstance(value, Tensor) and value.shape == old.shape
                    else value
                    for key, value in optimizer.state[old].items()
                }
                states.append((optimizer, old, parameter, state))
    replaced = {id(ref.tensor): new for ref, new in news.items()}
    for optimizer in optimizers:
        for options in optimizer.param_groups:
            options["params"] = [replaced.get(id(p), p) for p in options["params"]]
    for optimizer, old, parameter, state in states:
        del optimizer.state[old]
        optimizer.state[parameter] = state
    for ref, new in news.items():
        for module, name in ref.owners:
            if isinstance(new, nn.Parameter):
                module._parameters[name] = new
            else:
                module._buffers[name] = new
    for change in changes:
        slot = change.slot
        for module, _ in slot.ref.owners:
            for attribute in ATTRIBUTES.get(slot.role, ()):
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, slot.ref.tensor.shape[slot.dim])
