"""The constant output of a unit that does nothing else, moved into what its readers add or subtract.

A unit that no longer depends on the input can still reach its readers as a constant: sigmoid(0) is not 0, nor is a
bias. Removing it must not lose that constant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sizer import dimensions
from sizer.groups import Group, Reader


@torch.no_grad()
def fold_constants(
    module: nn.Module,
    inputs: tuple[Any, ...],
    dead: dict[Group, Tensor],
    scale: Callable[[Reader], Tensor | None],
    tolerance: float = 1e-6,
    multiple: int = 1,
) -> dict[Group, Tensor]:
    """Adds what units give their readers to the readers' biases, and says which of them may now be removed.

    The constants are those of evaluation mode, all read from one forward pass before anything changes. A reader without
    a bias that a batch normalisation follows takes them into its running mean.

    Args:
        module: the network; its parameters change.
        inputs: an example input.
        dead: for each group the units that do not depend on the input: (k,) int64 indices.
        scale: the gates on a reader's columns: (columns,), or None.
        tolerance: how much, relative to 1 + |constant|, an output may vary over the example and count as constant.
        multiple: as many of the units stay, and keep their constants, as make the width that is left a multiple.

    Returns:
        For each group (k',) those units whose constant was folded or reaches nobody; the others must stay: their output
        varies, as it does behind padding, or a reader has nothing to take it.
    """
    readings: dict[Reader, Tensor] | None = None
    result: dict[Group, Tensor] = {}
    moved: list[tuple[Reader, Tensor, Tensor]] = []
    for group, units in dead.items():
        possible = torch.ones(len(units), dtype=torch.bool)
        parts: list[tuple[Reader, Tensor, Tensor]] = []
        for reader in dict.fromkeys(group.readers):
            where = dimensions.positions(reader.column.units, group.atom)[units.cpu()]
            weight = reader.column.ref.tensor.movedim(reader.column.dim, 0)
            gates = scale(reader)
            columns = weight if gates is None else weight * gates.view(-1, *[1] * (weight.dim() - 1))
            columns = columns.reshape(*weight.shape[:2], -1).sum(2)[where.to(weight.device)]
            read = columns.abs().amax((1, 2)).cpu() > 0
            if not read.any():
                continue
            readings = _read(module, inputs, dead) if readings is None else readings
            if reader not in readings:
                possible &= ~read
                continue
            x = readings[reader].movedim(reader.at, -1).flatten(0, -2)[:, where.to(weight.device)]
            constant = x.mean(0)
            varies = (x - constant).abs().amax(0) > tolerance * (1 + constant.abs())
            takes = reader.even and (reader.bias is not None or reader.mean is not None)
            stuck = varies | (torch.zeros_like(varies) if takes else constant.abs() > tolerance)
            possible &= ~(stuck.any(1).cpu() & read)
            parts.append((reader, where.to(weight.device), columns * constant[:, :, None]))
        going = possible.nonzero()[:, 0]
        possible[going[: -(group.width - len(going)) % multiple]] = False
        for reader, where, part in parts:
            gone = possible.to(where.device)
            moved.append((reader, where[gone], part[gone]))
        result[group] = units[possible.to(units.device)]
    once: dict[Reader, Tensor] = {}
    for reader, where, part in moved:
        count = reader.column.ref.tensor.shape[reader.column.dim]
        # an entry of a flattened map may be a unit's of two groups
        left = once.setdefault(reader, torch.ones(count, dtype=part.dtype, device=part.device))
        constant = torch.einsum("kmo,km->o", part, left[where])
        left[where] = 0
        if reader.even and reader.bias is not None:
            reader.bias.tensor.add_(constant)
        elif reader.even and reader.mean is not None:
            reader.mean.tensor.sub_(constant)
    return result


def _read(module: nn.Module, inputs: tuple[Any, ...], groups: Iterable[Group]) -> dict[Reader, Tensor]:
    """The input of each reader in one forward pass in evaluation mode; not of those that run several times in it."""
    found: dict[Reader, Tensor] = {}

    def remember(reader: Reader) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            found[reader] = args[0]

        return hook

    alone: dict[Reader, None] = {}
    for group in groups:
        calls = Counter(reader.module for reader in group.readers)
        alone.update((reader, None) for reader in group.readers if reader.alone and calls[reader.module] == 1)
    handles = [reader.module.register_forward_pre_hook(remember(reader), prepend=True) for reader in alone]
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
