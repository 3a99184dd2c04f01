"""Dropout (Srivastava et al.: Dropout, 2014) in a network of fixed width: what sizing methods are compared with."""

from __future__ import annotations

from types import MethodType
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from sizer.errors import InputError
from sizer.groups import Reader
from sizer.methods.fixed import Fixed
from sizer.net import Net


class Dropout(Fixed):
    """A plain network that trains with a share of its units absent, drawn anew for each sample and pixel.

    What every layer behind a width that could be sized reads is dropped out, that is, behind activations and poolings;
    the inputs and outputs of the network are not. Dropout that the network has of itself stays. In evaluation nothing
    is dropped, and ``finish`` takes it out.

    Args:
        rate: the share of units that is dropped; those that stay are scaled by ``1 / (1 - rate)``.
    """

    name = "dropout"
    takes: ClassVar[str] = "layers"
    stacks: ClassVar[bool] = False
    settings: ClassVar = {"rate": 0.5}

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise InputError(f"rate must be at least 0 and under 1, got {rate}")
        self.rate = rate

    def prepare(self, net: Net) -> None:
        readers = {(reader.module, reader.column): reader for group in net.groups for reader in group.readers}
        for reader in readers.values():
            DroppedReading(reader, self.rate)

    def finish(self, net: Net) -> None:
        for module in (net.module, *net.copies):
            for reading in _readings(module):
                for handle in reading.handles:
                    handle.remove()
        super().finish(net)


class DroppedReading:
    """Forward hooks as an object, so that a copy of the network gets a copy of them.

    A module that does nothing but read the units gets its input with some of them dropped. Inside a module that does
    more, such as an attention, the input cannot be reached: its weight's columns are dropped, which is the same with
    one draw for the whole batch.
    """

    def __init__(self, reader: Reader, rate: float) -> None:
        self.slot = reader.column
        self.alone = reader.alone
        self.rate = rate
        self.inside = 0
        self.handles = [
            reader.module.register_forward_pre_hook(self.before),
            reader.module.register_forward_hook(self.after, always_call=True),
        ]

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None
        if self.alone and args:
            return (F.dropout(args[0], self.rate), *args[1:])
        owner, name = self.slot.ref.owners[0]
        if name in owner.__dict__:  # a module around this one reads the weight, too, and has dropped its columns
            self.inside += 1
            return None
        weight: Tensor = getattr(owner, name)
        shape = [1] * weight.dim()
        shape[self.slot.dim] = -1
        dropped = weight * F.dropout(weight.new_ones(weight.shape[self.slot.dim]), self.rate).view(shape)
        for owner, name in self.slot.ref.owners:
            owner.__dict__[name] = dropped
        return None

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.inside:
            self.inside -= 1
            return
        for owner, name in self.slot.ref.owners:
            owner.__dict__.pop(name, None)


def _readings(module: nn.Module) -> list[DroppedReading]:
    hooks = [hook for child in module.modules() for hook in child._forward_pre_hooks.values()]
    owners = [hook.__self__ for hook in hooks if isinstance(hook, MethodType)]
    return [owner for owner in owners if isinstance(owner, DroppedReading)]
