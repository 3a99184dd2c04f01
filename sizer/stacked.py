"""The parts of a stack: layers and gates whose tensors lead with the member, padded with zeros to the widest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sizer.gates import Gate


@dataclass(eq=False)
class StackedLayer:
    """One linear or convolutional layer of k networks, and the gates around it.

    Attributes:
        path: as in each member.
        module: the first member's, for what it has beside weights.
        width: its units in each member.
        area: columns of a unit of the layer before: the pixels of a flattened map.
        weight: (k, widest, columns) or (k, widest, channels, height, width).
        bias: (k, widest), or None.
        gate: on its own units, where its readers stand; or None.
        before: the gate on the units that it reads, or None.
    """

    path: str
    module: nn.Linear | nn.Conv2d
    width: tuple[int, ...]
    area: int
    weight: nn.Parameter
    bias: nn.Parameter | None
    gate: Gate | None = None
    before: Gate | None = None

    def incoming(self) -> list[Tensor]:
        """Weights and biases: (k, widest, n) each."""
        weights = self.weight.flatten(2)
        return [weights] if self.bias is None else [weights, self.bias.unsqueeze(-1)]

    def __call__(self, x: Tensor, shared: bool) -> Tensor:
        """Linear: (k, B, columns) -> (k, B, widest). Convolution: (B, k * channels, ...) -> (B, k * widest, ...).

        An input that all members share has no k.
        """
        weight: Tensor = self.weight
        bias, k = self.bias, len(self.width)
        maps = isinstance(self.module, nn.Conv2d)
        if self.before is not None:
            factor = torch.relu(self.before.theta)
            if self.area > 1:
                factor = factor.unsqueeze(-1).expand(-1, -1, self.area).flatten(1)
            if x.numel() < weight.numel():
                x = x * (factor.view(1, -1, 1, 1) if maps else factor.unsqueeze(1)).to(x.dtype)
            else:
                weight = weight * factor.view(k, 1, -1, *[1] * (weight.dim() - 3)).to(weight.dtype)
        if isinstance(self.module, nn.Conv2d):
            stride, padding, dilation = self.module.stride, self.module.padding, self.module.dilation
            return F.conv2d(x, *_side_by_side(weight, bias), stride, padding, dilation, 1 if shared else k)
        if shared:
            return F.linear(x, *_side_by_side(weight, bias)).view(len(x), k, -1).transpose(0, 1)
        # This way round the gradient of the weight comes laid out as the weight, and need not be copied.
        turned = torch.bmm(weight, x.mT) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, x.mT)
        return turned.mT


@dataclass(frozen=True)
class StackedGates:
    """The gates of a stack: theta and alive of each are (k, widest)."""

    by_group: dict[StackedLayer, Gate]

    def parameters(self) -> list[nn.Parameter]:
        return [gate.theta for gate in self.by_group.values()]


def padded(tensors: Sequence[Tensor], area: int) -> Tensor:
    """Tensors of k members in one, (k, ...), each padded with zeros to the widest.

    Args:
        tensors: of each member.
        area: so many entries of the last dimension belong to one unit and stay together.
    """
    blocks = [_blocks(tensor, area) for tensor in tensors]
    shape = [max(sizes) for sizes in zip(*(block.shape for block in blocks), strict=True)]
    result = blocks[0].new_zeros((len(blocks), *shape))
    for i, block in enumerate(blocks):
        result[i][_corner(block)] = block.detach()
    return result.flatten(-2) if area > 1 else result


def part(stacked: Tensor, member: int, like: Tensor, area: int) -> Tensor:
    """A member's own part of what ``padded`` made, in the shape of ``like``."""
    own = _blocks(stacked, area)[member][_corner(_blocks(like, area))]
    return own.reshape(like.shape)


def leading(numbers: Tensor, like: Tensor) -> Tensor:
    """One number a member, (k,), as it multiplies a stacked tensor."""
    return numbers.view(-1, *[1] * (like.dim() - 1))


def _blocks(tensor: Tensor, area: int) -> Tensor:
    return tensor.view(*tensor.shape[:-1], -1, area) if area > 1 else tensor


def _corner(tensor: Tensor) -> tuple[slice, ...]:
    return tuple(slice(size) for size in tensor.shape)


def _side_by_side(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Units of all members in one row."""
    return weight.flatten(0, 1), None if bias is None else bias.flatten()
