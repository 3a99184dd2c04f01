"""Filter layers (ShrinkNets, eq. 1): where they stand, and how they are folded away.

One theta gates one width group. It stands where units are read: it multiplies the columns of every weight that reads
them, which is the same as multiplying the units. So a closed gate is exactly zero for every reader, whatever lies
between the layer that writes a unit and those that read it, and any gate can be folded into the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sizer import dimensions
from sizer.dimensions import Atom, Dim, atoms
from sizer.groups import Group, Reader, Slot, TensorRef

PLACE = "sizer_gate"
"""Under this name a gate is a submodule of the first layer that it stands behind: a parameter like others."""


class Gate(nn.Module):
    """``Filter(I; theta) = I * max(0, theta)`` for one group.

    Attributes:
        theta: (width,), a parameter.
        alive: (width,) bool, a buffer; a gate that was closed stays closed.
    """

    alive: Tensor

    def __init__(self, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)
        self.register_buffer("alive", theta.detach() > 0)


def is_gate(name: str) -> bool:
    """Whether a parameter's or buffer's full name is that of a gate."""
    return any(part.startswith(PLACE) for part in name.split("."))


def scale(dim: Dim, gates: dict[Atom, Gate]) -> Tensor | None:
    """What the gates multiply each entry of a dimension by: (size,); None where none stands on it."""
    result: Tensor | None = None
    repeats = 1
    for atom in atoms(dim):
        own = None
        if atom in gates:
            own = torch.relu(gates[atom].theta)
        elif atom.parts:
            own = _concatenated(atom, gates)
        if own is None and result is None:
            repeats *= atom.size
        elif own is None:
            assert result is not None
            result = result.repeat_interleave(atom.size)
        else:
            result = own if result is None else (result[:, None] * own).flatten()
            result = result.repeat(repeats) if repeats > 1 else result
            repeats = 1
    return result


def _concatenated(atom: Atom, gates: dict[Atom, Gate]) -> Tensor | None:
    pieces = [scale(part, gates) for part in atom.parts]
    like = next((piece for piece in pieces if piece is not None), None)
    if like is None:
        return None
    return torch.cat(
        [
            like.new_ones(dimensions.size(part)) if piece is None else piece
            for part, piece in zip(atom.parts, pieces, strict=True)
        ]
    )


class GatedReading:
    """Forward hooks as an object, so that a copy of the network gets a copy of its gates.

    Before the module runs, its weight is hidden behind the gated one; where the input is the smaller of the two, that
    is multiplied instead.
    """

    def __init__(self, reader: Reader, gates: dict[Atom, Gate]) -> None:
        self.slot = reader.column
        self.owners = reader.column.ref.owners
        self.at = reader.at if reader.alone else None
        self.gates = gates
        self.inside = 0
        self.handles = [
            reader.module.register_forward_pre_hook(self.before),
            reader.module.register_forward_hook(self.after, always_call=True),
        ]

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        factor = scale(self.slot.units, self.gates)
        assert factor is not None
        owner, name = self.owners[0]
        if name in owner.__dict__:  # a module around this one reads the weight, too, and has gated it
            self.inside += 1
            return None
        weight: Tensor = getattr(owner, name)
        if self.at is not None and args and (torch.compiler.is_compiling() or args[0].numel() < weight.numel()):
            return (args[0] * factor.to(args[0].dtype).view(-1, *[1] * (-self.at - 1)), *args[1:])
        factor = factor.to(weight.dtype)
        if self.slot.dim < weight.dim() - 1:
            shape = [1] * weight.dim()
            shape[self.slot.dim] = -1
            factor = factor.view(shape)
        gated = weight * factor
        for owner, name in self.owners:
            owner.__dict__[name] = gated
        return None

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.inside:
            self.inside -= 1
            return
        for owner, name in self.owners:
            owner.__dict__.pop(name, None)


def _readings(module: nn.Module) -> list[GatedReading]:
    hooks = [hook for child in module.modules() for hook in child._forward_pre_hooks.values()]
    owners = [hook.__self__ for hook in hooks if isinstance(hook, MethodType)]
    return [owner for owner in owners if isinstance(owner, GatedReading)]


def factors(module: nn.Module) -> Callable[[Reader], Tensor | None]:
    """What the gates of a network, or of a copy of one, multiply a reader's columns by: (columns,); None for none."""
    readings = _readings(module)
    gates = readings[0].gates if readings else {}
    return lambda reader: scale(reader.column.units, gates)


@torch.no_grad()
def folded(module: nn.Module) -> dict[Tensor, Tensor]:
    """For each weight of a gated network, or of a copy of one, that reads behind gates: it with them inside."""
    result: dict[Tensor, Tensor] = {}
    for slot, gates in {reading.slot: reading.gates for reading in _readings(module)}.items():
        tensor = slot.ref.tensor
        factor = scale(slot.units, gates)
        assert factor is not None
        shape = [1] * tensor.dim()
        shape[slot.dim] = -1
        result[tensor] = result.get(tensor, tensor) * factor.to(tensor.dtype).view(shape)
    return result


def fold(module: nn.Module) -> None:
    """Folds the gates of a network, or of a copy of one, into the weights and takes them out; outputs stay the same."""
    for tensor, value in folded(module).items():
        tensor.data.copy_(value)
    for reading in _readings(module):
        for handle in reading.handles:
            handle.remove()
    for child in list(module.modules()):
        for name in [name for name, gate in child.named_children() if isinstance(gate, Gate)]:
            delattr(child, name)


class Gates:
    """All gates of one network.

    Args:
        module: the network.
        starts: the first theta of each group to be gated, of shape (width,).
    """

    def __init__(self, module: nn.Module, starts: dict[Group, Tensor]) -> None:
        self.module = module
        self.by_group: dict[Group, Gate] = {}
        self._by_atom: dict[Atom, Gate] = {}
        for group, start in starts.items():
            gate = Gate(start)
            self.by_group[group] = gate
            self._by_atom[group.atom] = gate
            first = next(slot for slot in group.slots if slot.role == "row").ref
            home, name = first.owners[0][0], PLACE
            while hasattr(home, name):
                name += "_"
            home.add_module(name, gate)
            for tensor in ("theta", "alive"):
                path = f"{first.path.rpartition('.')[0]}.{name}.{tensor}".lstrip(".")
                group.slots.append(Slot(TensorRef(path, ((gate, tensor),)), 0, (group.atom,), "gate"))
        # a module that runs twice, with another normalisation behind it each time, is gated once
        readers = {(reader.module, reader.column): reader for group in starts for reader in group.readers}
        for reader in readers.values():
            GatedReading(reader, self._by_atom)

    def parameters(self) -> list[nn.Parameter]:
        return [gate.theta for gate in self.by_group.values()]

    def remove(self) -> None:
        """Folds the gates into the weights that read behind them and takes them out; the outputs stay the same."""
        fold(self.module)
        for group in self.by_group:
            group.slots = [slot for slot in group.slots if slot.role != "gate"]
        self.by_group.clear()
        self._by_atom.clear()
