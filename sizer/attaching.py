"""attach(): a user's module made resizable."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import nn

from sizer.errors import InputError, UnsupportedNetworkError
from sizer.gates import is_gate
from sizer.graph import Graph
from sizer.graph_net import GraphNet
from sizer.groups import Traced
from sizer.methods.method import Method, misfit
from sizer.net import ATTACHED, Net
from sizer.trial import pin_hard_coded


def attach(
    module: nn.Module, example_input: Any, method: Method, ignore: Sequence[str] = (), *, round_to: int = 1
) -> Net:
    """Makes a plain module resizable while it trains.

    Args:
        module: any network that torch.export follows; changed in place by the method (gates, first widths).
        example_input: a tensor, or a tuple of the positional inputs, as forward() takes them; a batch of 2 is enough.
        method: what sizes it, from ``sizer.methods.create``.
        ignore: paths of submodules that keep their width, and may do what cannot be followed.
        round_to: removal leaves multiples of so many units, for hardware that likes them.

    Raises:
        UnsupportedNetworkError: its widths cannot be followed, or none is free.
        InputError: the module is attached already, a parameter cannot be resized, or a path in ``ignore`` is unknown.
    """
    if round_to < 1:
        raise InputError(f"round_to must be at least 1, got {round_to}")
    _check_free(module)
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    if why := misfit(type(method), isinstance(module, Graph)):
        raise InputError(why)
    if isinstance(module, Graph):
        net: Net = GraphNet(module, inputs, method, round_to)
        method.prepare(net)
        ATTACHED[module] = weakref.ref(net)
        return net
    traced = Traced(module, inputs, ignore)
    if method.sizes:
        pin_hard_coded(module, inputs, traced)
    net = Net(module, inputs, method, traced, round_to)
    if method.sizes and not net.groups:
        reasons = (
            "; ".join(f"{fixed.name or type(module).__name__}: {fixed.reason}" for fixed in net.fixed)
            or "it has no hidden layer"
        )
        raise UnsupportedNetworkError(f"{type(module).__name__} has no width that is free ({reasons})")
    method.prepare(net)
    ATTACHED[module] = weakref.ref(net)
    return net


def _check_free(module: nn.Module) -> None:
    """Refuses a module that another ``Net`` resizes, or that hides the network.

    Raises:
        InputError: it is one.
    """
    for kind in ("DistributedDataParallel", "DataParallel", "OptimizedModule"):
        if type(module).__name__ == kind:
            inner = "module._orig_mod" if kind == "OptimizedModule" else "module.module"
            raise InputError(f"attach the network itself, not its {kind}: attach({inner}, ...), and wrap it afterwards")
    other = ATTACHED.get(module)
    if any(is_gate(name) for name, _ in module.named_parameters()) or (other is not None and other() is not None):
        raise InputError(
            f"this {type(module).__name__} is attached already: use the net that attach() gave, or finish() it first"
        )
