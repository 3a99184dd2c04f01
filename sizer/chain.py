"""A network as a chain: linear and convolutional layers in a row, with nothing between them that knows a width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from sizer.gates import Gate, GatedReading

ELEMENTWISE = (nn.ReLU, nn.SELU, nn.ELU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Identity)
"""Activations with f(0) = 0: what is zero before them is zero behind them."""

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
WEIGHTED = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class Piece:
    """A module of a chain, and its path in the network."""

    path: str
    module: nn.Module

    @property
    def kind(self) -> str:
        """What two networks must have in common here to be stacked: all but the widths."""
        module = self.module
        if isinstance(module, nn.Conv2d):
            options = (module.kernel_size, module.stride, module.padding, module.dilation)
            return f"Conv2d{options} bias={module.bias is not None}"
        if isinstance(module, nn.Linear):
            return f"Linear bias={module.bias is not None}"
        return repr(module)


def chain_of(module: nn.Module) -> list[Piece] | None:
    """The pieces of a plain ``nn.Sequential`` in the order in which they run, those of nested ones among them.

    Returns:
        Linear and ungrouped Conv2d layers, activations with f(0) = 0, MaxPool2d, AvgPool2d, Dropout and Flatten, the
        last layer a Linear one; None where anything else is there, a layer stands twice, or hooks other than gates'.
    """
    if type(module) is not nn.Sequential:
        return None
    pieces = list(_flattened("", module))
    weighted = [piece.module for piece in pieces if isinstance(piece.module, WEIGHTED)]
    if not all(_plain(piece.module) for piece in pieces) or len({id(child) for child in weighted}) < len(weighted):
        return None
    shape = ""  # not known at first: samples of any shape may be flattened
    for piece in pieces:
        kind = type(piece.module)
        needed = "flat" if kind is nn.Linear else "maps" if kind in (nn.Conv2d, *POOLS) else shape
        if shape not in ("", needed):
            return None
        shape = "flat" if kind is nn.Flatten else needed
    return pieces if weighted and isinstance(weighted[-1], nn.Linear) else None


def _flattened(path: str, module: nn.Module) -> Iterator[Piece]:
    if type(module) is nn.Sequential and not _hooked(module):
        for name, child in module._modules.items():
            assert child is not None
            yield from _flattened(f"{path}.{name}".lstrip("."), child)
    else:
        yield Piece(path, module)


def _plain(module: nn.Module) -> bool:
    """Whether it is a piece of a chain."""
    if _hooked(module) or "forward" in vars(module):
        return False
    if isinstance(module, WEIGHTED):
        own = set(module._parameters) == {"weight", "bias"} and all(isinstance(c, Gate) for c in module.children())
        even = not isinstance(module, nn.Conv2d) or (module.groups == 1 and module.padding_mode == "zeros")
        return type(module) in WEIGHTED and own and even
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return False
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in (*ELEMENTWISE, *POOLS, nn.Dropout)


def _hooked(module: nn.Module) -> bool:
    """Whether hooks other than our gates' stand on it."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    gates = all(isinstance(getattr(hook, "__self__", None), GatedReading) for hook in hooks)
    return not gates or bool(module._backward_hooks) or bool(module._backward_pre_hooks)
