"""Networks to start from, one family a file, found by its name. For studies and for users: plain modules, no method in.

A file ``das_conv.py`` is the network ``das-conv``. It has ``DEFAULT``, the widths to start from, ``layers(depth)`` and
``build(input_shape, outputs, widths)``, which is given widths that are already checked; ``OUTPUT = "map"`` where it
gives values for each pixel. One whose history has other sizes than these widths lists them as ``SIZES``, and has
``rebuild(input_shape, outputs, sizes)``.
"""

from __future__ import annotations

import importlib
import operator
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType

from torch import nn

from sizer.errors import InputError, unknown

__all__ = ["build", "default_widths", "layered", "layers", "names", "output", "rebuild"]


def names() -> tuple[str, ...]:
    """List the networks there are, in the order of the alphabet."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


def build(name: str, input_shape: Sequence[int], outputs: int, widths: Sequence[int] | None = None) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: One of `names`.
        input_shape: One input's shape, without the batch: (F,), (C, L) or (C, H, W).
        outputs: Values that it returns for an input, or for each pixel: logits of classes, or regression values.
        widths: Units of each layer of `layers`, in that order, each 1 or more; `default_widths` where None.

    Returns:
        A module from float32 (N, *input_shape) to (N, outputs), or (N, outputs, H, W) where `output` is "map".

    Raises:
        UnknownNameError: There is no such network.
        InputError: Widths or shapes that this network cannot have.
    """
    family = _family(name)
    chosen = family.DEFAULT if widths is None else _whole(name, widths)
    layers(name, len(chosen))
    if outputs < 1:
        raise InputError(f"a network needs 1 output or more, got {outputs}")
    if not input_shape or min(input_shape) < 1:
        raise InputError(f"an input shape must be one or more sizes of 1 or more, got {tuple(input_shape)}")
    network: nn.Module = family.build(tuple(input_shape), outputs, chosen)
    return network


def rebuild(name: str, input_shape: Sequence[int], outputs: int, widths: Mapping[str, int]) -> nn.Module:
    """Build what a network became, by the widths in its history, for weights that are loaded afterwards.

    Args:
        name: One of `names`.
        input_shape, outputs: As `build` takes them.
        widths: Layer -> units, in the order they run; of a graph, how many neurons and synapses it has.

    Raises:
        UnknownNameError: There is no such network.
        InputError: Widths or shapes that this network cannot have.
    """
    family = _family(name)
    if layered(name):
        return build(name, input_shape, outputs, list(widths.values()))
    if missing := [size for size in family.SIZES if size not in widths]:
        raise InputError(f"{name} is built again by its {' and '.join(family.SIZES)}, got no {missing[0]}")
    network: nn.Module = family.rebuild(tuple(input_shape), outputs, widths)
    return network


def layers(name: str, depth: int | None = None) -> tuple[str, ...]:
    """List the widths, by the path of the layer that each comes from and in the order they run.

    Layers that share a width, as those of a residual sum do, are one, named by the one that runs first. The width of an
    attention layer is its heads. The output layer ``out`` is not among them: its width is given by the data.

    Args:
        name: One of `names`.
        depth: How many; as many as the network has by default where None.

    Raises:
        UnknownNameError: There is no such network.
        InputError: The network cannot have that many.
    """
    family = _family(name)
    listed: tuple[str, ...] = family.layers(len(family.DEFAULT) if depth is None else depth)
    if depth is not None and len(listed) != depth:
        raise InputError(f"{name} has {len(listed)} widths ({', '.join(listed)}), got {depth}")
    return listed


def default_widths(name: str) -> tuple[int, ...]:
    """Give the widths that the network's paper starts from, one for each of `layers`.

    Raises:
        UnknownNameError: There is no such network.
    """
    widths: tuple[int, ...] = _family(name).DEFAULT
    return widths


def layered(name: str) -> bool:
    """Say whether what changes of it are the widths of `layers`; of others it is what their file lists as ``SIZES``.

    Raises:
        UnknownNameError: There is no such network.
    """
    return not hasattr(_family(name), "SIZES")


def output(name: str) -> str:
    """Say what the network returns for an input: a "vector" of its outputs, or a "map" that has them for each pixel.

    Raises:
        UnknownNameError: There is no such network.
    """
    kind: str = getattr(_family(name), "OUTPUT", "vector")
    return kind


def _family(name: str) -> ModuleType:
    if name not in names():
        raise unknown("network", name, names())
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _whole(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    try:
        whole = tuple(operator.index(width) for width in widths)
    except TypeError:
        raise InputError(f"widths of {name} must be whole numbers, got {list(widths)}") from None
    if any(width < 1 for width in whole):
        raise InputError(f"every width of {name} must be 1 or more, got {list(whole)}")
    return whole
