"""Copies of a network that follow its widths while it trains, such as an average of its weights (EMA)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from sizer.errors import InputError
from sizer.folding import fold_constants
from sizer.gates import factors
from sizer.groups import Group, TensorRef


def inside(copy: nn.Module) -> nn.Module:
    """The copy itself, without what averages it."""
    return copy.module if isinstance(copy, AveragedModel) else copy


def check(module: nn.Module, copy: nn.Module) -> None:
    """Refuses what is no copy of the module as it stands.

    Raises:
        InputError: it has other tensors, or is the module itself.
    """
    if copy is module:
        raise InputError("this is the network itself, which follows by itself; give follow() a copy of it")
    mine = {name: value.shape for name, value in module.state_dict().items()}
    theirs = {name: value.shape for name, value in copy.state_dict().items()}
    if mine != theirs:
        odd = next(name for name in [*mine, *theirs] if mine.get(name) != theirs.get(name))
        raise InputError(
            f"this is no copy of the network: '{odd}' is {_shape(theirs.get(odd))} there and "
            f"{_shape(mine.get(odd))} here; copy it after attach()"
        )


def fold_there(copy: nn.Module, inputs: tuple[Any, ...], going: dict[Group, Tensor]) -> None:
    """Folds what units give their readers into the readers' biases, in a copy, as ``fold_constants`` does.

    Args:
        copy: of the network; its units are about as constant as those of the network.
        inputs: an example input.
        going: the units that are constant in the network and leave both, as indices.
    """
    there = {_counterpart(group, copy): units for group, units in going.items() if len(units)}
    if there:
        fold_constants(copy, beside(inputs, copy), there, factors(copy), float("inf"))


def beside(inputs: tuple[Any, ...], module: nn.Module) -> tuple[Any, ...]:
    """The inputs on the device where the module is by now."""
    device = next(module.parameters()).device
    moved = pytree.tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, inputs)
    return tuple(moved)


def _counterpart(group: Group, copy: nn.Module) -> Group:
    """The group with its readers in the copy."""

    def ref(own: TensorRef) -> TensorRef:
        owner, _, name = own.path.rpartition(".")
        return TensorRef(own.path, ((copy.get_submodule(owner), name),))

    readers = [
        replace(
            reader,
            module=copy.get_submodule(reader.path),
            column=replace(reader.column, ref=ref(reader.column.ref)),
            bias=reader.bias and ref(reader.bias),
            mean=reader.mean and ref(reader.mean),
        )
        for reader in group.readers
    ]
    return replace(group, readers=readers)


def _shape(value: Any) -> str:
    return "missing" if value is None else str(tuple(value))
