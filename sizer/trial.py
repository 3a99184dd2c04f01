"""A trial resize in a copy of the network: widths that forward() has hard-coded show in an error or other outputs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sizer import dimensions, resize
from sizer.groups import HARD_CODED, Group, Slot, TensorRef, Traced

TOLERANCE = 1e-3


def pin_hard_coded(module: nn.Module, inputs: tuple[Any, ...], traced: Traced) -> None:
    """Pins every width that cannot change because something in the network counts on it.

    In a copy of the network, one unit of each group that no reader listens to is removed and some are grown that none
    listens to either: outputs must stay as they are.
    """
    groups = traced.groups().free
    if not groups or problem(module, inputs, groups) is None:
        return
    sound: list[Group] = []
    for group in groups:
        what = problem(module, inputs, [*sound, group])
        if what is None:
            sound.append(group)
        else:
            what = problem(module, inputs, [group]) or what
            traced.pin(group, f"{HARD_CODED}: {what}")


def problem(module: nn.Module, inputs: tuple[Any, ...], groups: list[Group]) -> str | None:
    """What goes wrong when the groups get other widths; None where nothing does."""
    memo: dict[int, Any] = {}
    trial = copy.deepcopy(module, memo).eval()
    widths = {group: group.width for group in groups}
    copies = [_moved(group, memo) for group in groups]
    with torch.no_grad(), torch.random.fork_rng([]):
        chosen: dict[Group, Tensor] = {}
        taken = {atom.size for group in copies for slot in group.slots for atom in dimensions.atoms(slot.units)}
        for at, group in enumerate(copies):
            spare = 1 if group.width > 1 else 0
            for slot in group.roles("column"):
                where = dimensions.positions(slot.units, group.atom)[:spare].flatten()
                slot.ref.tensor.index_fill_(slot.dim, where.to(slot.ref.tensor.device), 0)
            new = torch.full((_another(group.width, taken, at % 5) - group.width + spare,), -1)
            chosen[group] = torch.cat((torch.arange(spare, group.width), new))
        before = _outputs(trial, inputs)
        inside: list[str] = []
        for path, child in trial.named_modules():
            child.register_forward_pre_hook(lambda _, __, path=path: inside.append(path))
            child.register_forward_hook(lambda _, __, ___: (inside.pop(), None)[1])
        try:
            resize.resize(chosen, _noise)
            after = _outputs(trial, inputs)
        except Exception as error:  # whatever the user's forward() raises when a width is not what it expects
            who = f"module '{inside[-1]}'" if inside and inside[-1] else "the network's own forward()"
            return f"{who} failed with another width ({type(error).__name__}: {str(error).splitlines()[0]})"
        finally:
            for original, width in widths.items():
                original.atom.size = width
    for old, now in zip(before, after, strict=False):
        if old.shape != now.shape:
            return f"the output's shape changes from {tuple(old.shape)} to {tuple(now.shape)} with another width"
        size = old.abs().amax() if old.is_floating_point() and old.numel() else torch.zeros(())
        if old.numel() and not torch.allclose(old.float(), now.float(), TOLERANCE, TOLERANCE * float(size), True):
            return "a unit that nothing listens to changes the output when its layer has another width"
    return None if len(before) == len(after) else "the number of outputs changes with another width"


def _moved(group: Group, memo: dict[int, Any]) -> Group:
    """The group in the copy; its atom stays, so that sizes must be put back."""

    def moved(slot: Slot) -> Slot:
        owners = tuple((memo[id(owner)], name) for owner, name in slot.ref.owners)
        return replace(slot, ref=TensorRef(slot.ref.path, owners))

    attributes = [replace(attribute, module=memo[id(attribute.module)]) for attribute in group.attributes]
    return replace(group, slots=[moved(slot) for slot in group.slots], attributes=attributes)


def _another(width: int, taken: set[int], at: int) -> int:
    """A prime over ``width`` that no dimension has, the ``at``-th: no view() with a width in it can cut it by chance.

    Widths that are tied by how forward() cuts a tensor must not pass by changing alike either, hence ``at``.
    """
    while at >= 0:
        width += 1
        at -= width not in taken and all(width % factor for factor in range(2, math.isqrt(width) + 1))
    return width


def _noise(slot: Slot, entries: Tensor) -> None:
    if slot.role != "column":
        entries.copy_(torch.rand_like(entries) + 0.5)


def _outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return list(_tensors(module(*inputs)))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
