"""The constant output of a unit that does nothing else, moved into the bias of those who read it.

A unit whose gate is closed can still reach its readers as a constant: sigmoid(0) is not 0. Removing it must not lose
that constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sizer.groups import Group, Reader


@torch.no_grad()
def fold_constants(
    module: nn.Module, inputs: tuple[Any, ...], group: Group, units: Tensor, tolerance: float = 1e-6
) -> Tensor:
    """Adds what ``units`` give their readers to the readers' biases, and says which of them may now be removed.

    The constants are those of evaluation mode, read from one forward pass.

    Args:
        module: the network; its parameters change.
        inputs: an example input.
        group: the group that the units belong to.
        units: (k,) int64 indices of units that do not depend on the input.
        tolerance: how much, relative to 1 + |constant|, an output may vary over the example and count as constant.

    Returns:
        (k',) those units whose constant was folded, or is zero; the others must stay. A reader without a bias, or with
        zeros around its input, takes no constant.
    """
    readings = _read(module, inputs, group.readers)
    possible = torch.ones(len(units), dtype=torch.bool)
    constants: list[tuple[Reader, Tensor, Tensor]] = []
    for reader in group.readers:
        slot = next(slot for slot in group.roles("column") if slot.ref == reader.weight)
        if reader not in readings:
            possible[:] = False
            continue
        x = readings[reader].movedim(reader.dim, -1)
        x = x.reshape(-1, slot.outer, group.width, slot.inner).index_select(2, units)
        constant = x.mean(0)
        varies = (x - constant).abs().amax(0) > tolerance * (1 + constant.abs())
        open_to = reader.bias is not None and not reader.padded
        stuck = varies | (torch.zeros_like(varies) if open_to else constant.abs() > tolerance)
        possible &= ~stuck.any(2).any(0).cpu()
        weight = reader.weight.tensor
        columns = weight.view(len(weight), slot.outer, group.width, slot.inner, -1).sum(-1).index_select(2, units)
        constants.append((reader, columns, constant))
    for reader, columns, constant in constants:
        if reader.bias is not None and not reader.padded:
            part = (columns * constant)[:, :, possible.to(columns.device)]
            reader.bias.tensor.add_(part.sum((1, 2, 3)))
    return units[possible.to(units.device)]


def _read(module: nn.Module, inputs: tuple[Any, ...], readers: list[Reader]) -> dict[Reader, Tensor]:
    """The input of each reader in one forward pass in evaluation mode."""
    found: dict[Reader, Tensor] = {}

    def remember(reader: Reader) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            found[reader] = args[0]

        return hook

    handles = [reader.module.register_forward_pre_hook(remember(reader)) for reader in readers if reader.alone]
    training = [child for child in module.modules() if child.training]
    try:
        module.eval()
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for child in training:
            child.training = True
    return found
