"""The order in which tensors lie in memory.

Convolutions take two thirds to nine tenths of the time where the channels of a place lie side by side (torch's
``channels_last``). Optimisers step through memory, so that what they keep must lie as the parameter does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channels_last(module: nn.Module) -> None:
    """Lays the weights of two-dimensional convolutions out so; the values stay, and so do the parameters.

    Only where nothing but torch's own modules, one after the other, sees what comes of it: a forward() of one's own may
    count on the order, as ``x.view(len(x), -1)`` does. And not where a convolution of 1 x 1 takes strides: its gradient
    then writes outside of its memory (seen in torch 2.13 on a CPU).
    """
    if all(type(each) is nn.Sequential or _bears(each) for each in module.modules()):
        for parameter in module.parameters():
            if parameter.dim() == 4 and parameter.shape[2:] != (1, 1):
                parameter.data = _laid(parameter.data)


def like(value: Tensor, other: Tensor) -> Tensor:
    """The value, lying as another tensor does: of its shape, or of as many dimensions."""
    if value.shape == other.shape:
        return value if value.stride() == other.stride() else torch.empty_like(other, dtype=value.dtype).copy_(value)
    if value.dim() != 4 or not _is_laid(other):
        return value.contiguous()
    return _laid(value)


def _bears(module: nn.Module) -> bool:
    """Whether it is one of torch's own that takes any order."""
    if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1):
        return False
    return type(module).__module__.startswith("torch.nn.modules.") and not list(module.children())


def _is_laid(value: Tensor) -> bool:
    # is_contiguous() cannot tell where there is but one channel, which may become several.
    return value.stride(1) == 1 and value.shape[2:] != (1, 1)


def _laid(value: Tensor) -> Tensor:
    return torch.empty_like(value, memory_format=torch.channels_last).copy_(value)
