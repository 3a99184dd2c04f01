"""Width groups: everything that must change together when one width changes, of any network that exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sizer import dimensions
from sizer.dimensions import Atom, Dim, atoms
from sizer.errors import InputError, unknown

HARD_CODED = "hard-coded where it is used"
WRITTEN = ("row", "bias", "scale", "shift")
"""Roles of what gives units their size."""


@dataclass(frozen=True)
class TensorRef:
    """A parameter or buffer, by the modules that own it (several where it is tied)."""

    path: str
    owners: tuple[tuple[nn.Module, str], ...]

    @property
    def tensor(self) -> Tensor:
        module, name = self.owners[0]
        value = getattr(module, name)
        assert isinstance(value, Tensor)
        return value


@dataclass(frozen=True)
class Slot:
    """One dimension of a parameter or buffer that holds units.

    ``role`` is what the dimension is used for: ``row`` (a producer's output), ``bias``, ``column`` (a consumer's
    input), ``scale``, ``shift``, ``mean``, ``variance`` (normalisation), ``slope``, ``offset``, ``factor``, ``gate``.
    """

    ref: TensorRef
    dim: int
    units: Dim
    role: str

    def by_unit(self, tensor: Tensor, group: Group) -> Tensor:
        """A tensor's entries by unit, in the order of the tensor: (width, entries a unit)."""
        first = tensor.movedim(self.dim, 0)
        if atoms(self.units) != (group.atom,):
            where = dimensions.positions(self.units, group.atom).to(tensor.device)
            first = first[where]
        return first.reshape(group.width, -1)

    def put_by_unit(self, tensor: Tensor, group: Group, values: Tensor) -> None:
        """Writes what ``by_unit`` gave, changed, back into the tensor: (width, entries a unit)."""
        first = tensor.movedim(self.dim, 0)
        if atoms(self.units) == (group.atom,):
            first.copy_(values.reshape(first.shape))
        else:
            where = dimensions.positions(self.units, group.atom).to(tensor.device).flatten()
            first[where] = values.reshape(len(where), *first.shape[1:]).to(tensor.dtype)


@dataclass(frozen=True)
class Reader:
    """A linear or convolutional operation that reads units along ``at`` (negative) of its input.

    Attributes:
        module, path: whose forward() runs it.
        column: where its weight holds the units.
        at: where its input holds them.
        bias: what is added to its output; None where nothing is.
        mean: what a batch normalisation behind it, and nothing else, subtracts from its output; None where none is.
        even: a constant input gives a constant output: no zeros surround the input.
        alone: the operation is all that its module does.
    """

    module: nn.Module
    path: str
    column: Slot
    at: int
    bias: TensorRef | None
    mean: TensorRef | None
    even: bool
    alone: bool


@dataclass(frozen=True)
class Attribute:
    """An int of a module that says how large a dimension is, such as ``out_features`` or ``num_heads``."""

    module: nn.Module
    name: str
    units: Dim


@dataclass(eq=False)
class Group:
    """One width.

    A unit is a neuron or a filter; where those stand or fall together (a group of a grouped convolution or of a group
    normalisation, an attention head) it is all of them.

    Attributes:
        name: the path of the layer that produces it first.
        slots: where it stands in parameters and buffers.
        writers: those of them that scale the units as their readers see them: rows and biases, or the scale and shift
            of the batch normalisation that follows.
        readers: who reads them.
        attributes: ints of modules that follow it.
    """

    name: str
    atom: Atom
    slots: list[Slot]
    writers: list[Slot]
    readers: list[Reader]
    attributes: list[Attribute]

    @property
    def width(self) -> int:
        """How many units it has now."""
        return self.atom.size

    def incoming(self) -> list[Tensor]:
        """What gives the units their outputs, weights and biases and what rescales them: (width, n) each."""
        return [slot.by_unit(slot.ref.tensor, self) for slot in self.roles(*WRITTEN)]

    def roles(self, *roles: str) -> list[Slot]:
        return [slot for slot in self.slots if slot.role in roles]


@dataclass(frozen=True)
class FixedWidth:
    """A width that does not change, and why."""

    name: str
    width: int
    reason: str


@dataclass
class Groups:
    """The free width groups in the order in which they run, and the fixed widths."""

    free: list[Group]
    fixed: list[FixedWidth]


class Traced:
    """What following a network gave; ``groups`` reads the width groups from it.

    Args:
        module: any module that torch.export follows; it is not changed.
        inputs: the positional inputs of one forward pass, of a batch of at least 2.
        ignore: paths of submodules whose widths stay as they are, whatever they do.

    Raises:
        UnsupportedNetworkError: an operation cannot be followed; the message names module path and operation.
        InputError: a parameter cannot be resized, or a path in ``ignore`` is not there.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Any, ...], ignore: Sequence[str] = ()) -> None:
        from sizer.follower import Follower
        from sizer.tracing import programs

        known = [path for path, _ in module.named_modules() if path]
        for path in ignore:
            if path not in known:
                raise unknown("module to ignore", path, known)
        check_parameters(module)
        self._follower = Follower(module, ignore)
        for program in programs(module, inputs, ignore):
            self._follower.walk(program)
        self._follower.pin_ignored()

    def pin(self, group: Group, reason: str) -> None:
        """Says that a width stays as it is."""
        dimensions.pin((group.atom,), reason)

    def groups(self) -> Groups:
        """The width groups as they stand."""
        follower = self._follower
        slots: dict[Atom, list[Slot]] = {}
        for slot in follower.slots():
            for leaf in dimensions.leaves(slot.units):
                slots.setdefault(leaf, []).append(slot)
        groups = Groups([], [])
        seen: dict[Atom, str] = {}
        for rows, name in follower.producers:
            leaves = dimensions.leaves(rows)
            for leaf in [leaf for leaf in leaves if not leaf.pin and leaf not in seen]:
                readers = [reader for reader in follower.readers if leaf in dimensions.leaves(reader.column.units)]
                if not readers:
                    leaf.pin = "no layer reads it"
                    continue
                taken = sum(group.name.split(":")[0] == name for group in groups.free)
                seen[leaf] = f"{name}:{taken + 1}" if taken else name
                written = [slot for slot in slots[leaf] if slot.role in WRITTEN]
                writers = [slot for slot in written if id(slot.ref.tensor) in follower.writers]
                attributes = [a for a in follower.attributes if leaf in dimensions.leaves(a.units)]
                groups.free.append(Group(seen[leaf], leaf, slots[leaf], writers, readers, attributes))
            if leaves and all(leaf.pin for leaf in leaves) and leaves[0] not in seen:
                seen[leaves[0]] = name
                groups.fixed.append(FixedWidth(name, dimensions.size(rows), _reason(leaves)))
        return groups


def _reason(leaves: list[Atom]) -> str:
    """Why a width stays: of several reasons that of what looked free, then that of the largest part."""
    return max(leaves, key=lambda leaf: (leaf.pin.startswith(HARD_CODED), leaf.size)).pin


def find_groups(module: nn.Module, inputs: tuple[Any, ...], ignore: Sequence[str] = ()) -> Groups:
    """Finds the width groups of ``module`` by tracing it, as ``Traced`` does; the module is not changed."""
    return Traced(module, inputs, ignore).groups()


def check_parameters(module: nn.Module) -> None:
    """Refuses what cannot be resized: parameters of whole numbers, and those that share memory without being one.

    Raises:
        InputError: there is such a parameter.
    """
    homes: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        if not parameter.is_floating_point():
            raise InputError(
                f"parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}: only floating-point parameters "
                "can be trained and sized; make it a buffer, or quantise after sizing"
            )
        if parameter.numel() and parameter.device.type != "meta":
            other = homes.setdefault(parameter.data_ptr(), name)
            if other != name:
                raise InputError(
                    f"parameters '{other}' and '{name}' share their memory but are two parameters, so a resize would "
                    "part them; tie them by assigning one to the other's place"
                )
