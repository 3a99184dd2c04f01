"""A network that a user's function builds: its free widths, and the network with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sizer.errors import InputError, UnsupportedNetworkError
from sizer.groups import Group, Traced
from sizer.methods import create
from sizer.net import Net
from sizer.trial import pin_hard_coded
from sizer.usercode import Code


def widths_of(code: Code, input_shape: Sequence[int], outputs: int) -> dict[str, int]:
    """The free widths of the network as the function builds it: layer -> units, in the order in which they run.

    Args:
        code: called as ``function(input_shape, outputs)``; random states are left as they were.
        input_shape: one input's shape, without the batch.
        outputs: classes or regression targets.

    Raises:
        InputError: the function raises, or gives something else than such a network.
        UnsupportedNetworkError: its widths cannot be followed, or none is free.
    """
    with torch.random.fork_rng([]):
        module = _called(code, input_shape, outputs)
        _check_outputs(code, module, input_shape, outputs)
        net = _attached(code, module, input_shape)
    if not net.groups:
        reasons = "; ".join(f"{fixed.name or 'forward()'}: {fixed.reason}" for fixed in net.fixed)
        raise UnsupportedNetworkError(f"{code.name} has no width that is free ({reasons or 'it has no hidden layer'})")
    return net.widths


def build(
    code: Code, input_shape: Sequence[int], outputs: int, widths: Mapping[str, int] | Sequence[int] | None = None
) -> nn.Module:
    """The network with fresh weights, drawn from torch's global generator.

    Modules that get another width draw their weights again, by ``reset_parameters()``, for the inputs they then have;
    the others keep what the function gave them.

    Args:
        code: called as ``function(input_shape, outputs)``.
        input_shape: one input's shape, without the batch.
        outputs: classes or regression targets.
        widths: layer -> units, or one for each of ``widths_of``; those that the function builds where None.

    Raises:
        InputError: the function raises or gives no module, or the module has no such widths.
        UnsupportedNetworkError: its widths cannot be followed.
    """
    module = _called(code, input_shape, outputs)
    if widths is None:
        return module
    net = _attached(code, module, input_shape)
    if not isinstance(widths, Mapping):
        if len(widths) != len(net.groups):
            names = ", ".join(net.widths)
            raise InputError(f"{code.name} has {len(net.groups)} widths ({names}), got {len(widths)}")
        widths = dict(zip(net.widths, widths, strict=True))
    fixed = {each.name: each.width for each in net.fixed}
    changed = [
        (net.group(layer), width)
        for layer, width in widths.items()
        if fixed.get(layer) != width and net.group(layer).width != width
    ]
    if changed:
        net.resize_to({group.name: width for group, width in changed})
        _reset(module, [group for group, _ in changed])
    return net.finish()


def _called(code: Code, input_shape: Sequence[int], outputs: int) -> nn.Module:
    module = code(tuple(input_shape), outputs)
    if not isinstance(module, nn.Module):
        raise InputError(f"{code.name} must give a torch.nn.Module, got {type(module).__name__}")
    return module


def _check_outputs(code: Code, module: nn.Module, input_shape: Sequence[int], outputs: int) -> None:
    training = [child for child in module.modules() if child.training]
    try:
        with torch.no_grad():
            given = module.eval()(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever the user's forward() does
        first = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"the network of {code.name} fails on inputs (N, {', '.join(map(str, input_shape))}):"
            f" {type(error).__name__}: {first}"
        ) from error
    finally:
        for child in training:
            child.training = True
    if not isinstance(given, torch.Tensor) or tuple(given.shape[:2]) != (2, outputs):
        got = f"shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else f"a {type(given).__name__}"
        raise InputError(f"the network of {code.name} must give {outputs} outputs for each input, got {got} for 2")


def _attached(code: Code, module: nn.Module, input_shape: Sequence[int]) -> Net:
    """The network made resizable for once, in the widths that a sizing method may change."""
    inputs = (torch.zeros(2, *input_shape),)
    try:
        traced = Traced(module, inputs)
        pin_hard_coded(module, inputs, traced)
    except UnsupportedNetworkError as error:
        raise UnsupportedNetworkError(f"{code.name}: {error}") from error
    return Net(module, inputs, create("fixed"), traced)


def _reset(module: nn.Module, groups: list[Group]) -> None:
    """Draws the weights of every module that holds units of the groups again."""
    changed = {id(owner) for group in groups for slot in group.slots for owner, _ in slot.ref.owners}
    for child in module.modules():
        if id(child) in changed and callable(reset := getattr(child, "reset_parameters", None)):
            reset()
