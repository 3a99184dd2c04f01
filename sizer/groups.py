"""Width groups: everything that must change together when one width changes, of any network that exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sizer import dimensions
from sizer.dimensions import Atom, atoms
from sizer.errors import unknown


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
    """Where a group stands in one tensor: ``tensor.shape[dim] == outer * width * inner``, in row-major order.

    ``role`` is what the dimension is used for: ``row`` (a producer's output), ``bias``, ``column`` (a consumer's
    input), ``scale``, ``shift``, ``mean``, ``variance`` (normalisation), ``offset``, ``factor``, ``gate``.
    """

    ref: TensorRef
    dim: int
    outer: int
    inner: int
    role: str


@dataclass(frozen=True)
class Site:
    """A module call whose output holds the units of a group along ``dim`` (negative, from the last)."""

    module: nn.Module
    path: str
    dim: int
    normalises: bool


@dataclass(frozen=True)
class Reader:
    """A linear or convolutional operation that reads a group's units along ``dim`` (negative) of its input.

    ``padded`` if zeros surround that input; ``alone`` if the operation is all that its module does.
    """

    module: nn.Module
    path: str
    dim: int
    weight: TensorRef
    bias: TensorRef | None
    padded: bool
    alone: bool


@dataclass(eq=False)
class Group:
    """One width.

    Attributes:
        name: the path of the layer that produces it first.
        width: how many units it has now.
        slots: where it stands in parameters and buffers.
        sites: where all its units are written, so that a gate can stand there.
        readers: who reads them.
        shifted: an operation between units and readers gives f(0) != 0, so that a unit that is zero reaches its readers
            as a constant.
        ungated: why no gate can stand; empty where one can.
    """

    name: str
    width: int
    slots: list[Slot]
    sites: list[Site]
    readers: list[Reader]
    shifted: bool
    ungated: str

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


def find_groups(module: nn.Module, inputs: tuple[Any, ...], ignore: Sequence[str] = ()) -> Groups:
    """Finds the width groups of ``module`` by tracing it; the module is not changed.

    Args:
        module: any module that torch.export follows.
        inputs: the positional inputs of one forward pass, of a batch of at least 2.
        ignore: paths of submodules whose widths stay as they are.

    Raises:
        UnsupportedNetworkError: an operation cannot be followed; the message names module path and operation.
        UnknownNameError: a path in ``ignore`` is not there.
    """
    from sizer.rules import Follower
    from sizer.tracing import programs

    known = [path for path, _ in module.named_modules() if path]
    for path in ignore:
        if path not in known:
            raise unknown("module to ignore", path, known)
    follower = Follower(module)
    for program in programs(module, inputs):
        follower.walk(program)
    for key, ref in follower.refs.items():
        if any(ref.path.startswith(f"{path}.") for path in ignore):
            for at, dim in enumerate(follower.shapes[key]):
                if follower.roles.get((key, at)) != "column":
                    dimensions.pin(dim, "ignored, as asked")
    slots: dict[Atom, list[Slot]] = {}
    for key, shape in follower.shapes.items():
        for at, dim in enumerate(shape):
            parts = atoms(dim)
            for position, atom in enumerate(parts):
                outer, inner = dimensions.size(parts[:position]), dimensions.size(parts[position + 1 :])
                role = follower.roles.get((key, at), "unused")
                slots.setdefault(atom, []).append(Slot(follower.refs[key], at, outer, inner, role))
    groups = Groups([], [])
    seen: set[Atom] = set()
    for rows, name in follower.producers:
        for atom in atoms(rows):
            if atom in seen:
                continue
            seen.add(atom)
            if atom.pin:
                groups.fixed.append(FixedWidth(name, dimensions.size(rows), atom.pin))
                break
            sites = {site: why for dim, site, why in follower.sites if atom in atoms(dim)}
            readers = {reader: None for dim, reader in follower.readers if atom in atoms(dim)}
            ungated = next((why for why in sites.values() if why), "")
            groups.free.append(Group(name, atom.size, slots[atom], list(sites), list(readers), atom.shifted, ungated))
    return groups
