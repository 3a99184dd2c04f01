"""Filter layers (ShrinkNets, eq. 1): where they stand, and how they are folded away.

One theta gates one width group. It multiplies the units wherever they are written: after a linear or convolutional
layer, or after the batch normalisation that follows it, so that a closed gate is exactly zero for every reader.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sizer.groups import Group, Site, Slot, TensorRef

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

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Multiplies ``x`` by the open gates along ``dim`` (negative)."""
        open_gates = torch.relu(self.theta)
        return x * (open_gates if dim == -1 else open_gates.view(-1, *[1] * (-dim - 1)))


def is_gate(name: str) -> bool:
    """Whether a parameter's or buffer's full name is that of a gate."""
    return PLACE in name.split(".")


class GateHook:
    """A forward hook as an object, so that a copy of the network gets a copy of its gate."""

    def __init__(self, gate: Gate, dim: int) -> None:
        self.gate = gate
        self.dim = dim

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.gate(output, self.dim)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class Gates:
    """All gates of one network.

    Args:
        starts: the first theta of each group to be gated, of shape (width,).
    """

    def __init__(self, starts: dict[Group, Tensor]) -> None:
        self.by_group: dict[Group, Gate] = {}
        self._handles = []
        for group, start in starts.items():
            gate = Gate(start)
            self.by_group[group] = gate
            for name in ("theta", "alive"):
                path = f"{group.sites[0].path}.{PLACE}.{name}"
                group.slots.append(Slot(TensorRef(path, ((gate, name),)), 0, 1, 1, "gate"))
            for site in group.sites:
                _make_affine(site, group)
                self._handles.append(site.module.register_forward_hook(GateHook(gate, site.dim)))
            group.sites[0].module.add_module(PLACE, gate)

    def parameters(self) -> list[nn.Parameter]:
        return [gate.theta for gate in self.by_group.values()]

    @torch.no_grad()
    def folded(self) -> dict[int, Tensor]:
        """What each gated layer's tensors would be with the gate inside them, by the tensor's id."""
        result: dict[int, Tensor] = {}
        for group, gate in self.by_group.items():
            rows = torch.relu(gate.theta)
            for tensor in _written(group):
                result[id(tensor)] = tensor * rows.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1))
        return result

    def remove(self) -> None:
        """Folds the gates into the layers before them and takes them out; the outputs stay the same."""
        folded = self.folded()
        for group in self.by_group:
            delattr(group.sites[0].module, PLACE)
            for tensor in _written(group):
                tensor.data.copy_(folded[id(tensor)])
            group.slots = [slot for slot in group.slots if slot.role != "gate"]
        for handle in self._handles:
            handle.remove()
        self.by_group.clear()


def _written(group: Group) -> list[Tensor]:
    """What scales the output at a group's sites: rows and biases, or a normalisation's scale and shift; each once."""
    found: dict[int, Tensor] = {}
    for site in group.sites:
        for slot in group.roles(*(("scale", "shift") if site.normalises else ("row", "bias"))):
            if any(owner is site.module for owner, _ in slot.ref.owners):
                found[id(slot.ref.tensor)] = slot.ref.tensor
    return list(found.values())


def _make_affine(site: Site, group: Group) -> None:
    """Gives a normalisation without scale and shift both, constant, so that a gate can be folded into it."""
    module = site.module
    if not site.normalises or getattr(module, "weight", None) is not None:
        return
    like = module.running_mean
    device = like.device if isinstance(like, Tensor) else None
    setattr(module, "affine", True)  # noqa: B010  # nn.Module's attributes are typed as tensors and modules
    for name, role, value in (("weight", "scale", 1.0), ("bias", "shift", 0.0)):
        module.register_parameter(name, nn.Parameter(torch.full((group.width,), value, device=device), False))
        group.slots.append(Slot(TensorRef(f"{site.path}.{name}", ((module, name),)), 0, 1, 1, role))
