"""What the units of a network do on data: mean size, variance and correlation, streamed in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sizer import copies
from sizer.dimensions import positions
from sizer.errors import InputError
from sizer.groups import Group, Reader

STILL = 1e-9
"""An activation that varies by less than this share of its mean is constant: less than float32 resolves."""


@dataclass(frozen=True)
class Statistics:
    """What the units of one group give their first reader, after the activation; all float64.

    Attributes:
        l1: mean of the absolute values: (width,).
        mean: (width,).
        variance: (width,), over all samples and positions, divided by their number.
        correlation: (width, width), 1 on the diagonal; 0 with units that are constant. None where not asked for.
    """

    l1: Tensor
    mean: Tensor
    variance: Tensor
    correlation: Tensor | None


@torch.no_grad()
def measure(
    module: nn.Module,
    groups: Iterable[Group],
    data: Iterable[Tensor | tuple[Tensor, ...]],
    *,
    correlations: bool = False,
    pooled: bool = False,
) -> dict[Group, Statistics]:
    """Streams data through a network once, in evaluation mode; batches weigh by their samples.

    A unit's activations are what its first reader gets: of a feature map one for each sample and position, the pixels
    behind a flatten likewise. Correlations of feature maps (DARN, sec. 3: "the average of the correlation between
    convolved features") are taken over the samples at each position and averaged over the positions at which at least
    one of both varies; that needs 8 * positions * width^2 bytes a group.

    Args:
        module: the network; modes and buffers are left as they were.
        groups: width groups of it.
        data: the positional inputs of each batch.
        correlations: whether to take them.
        pooled: positions count as further samples instead, which needs 8 * width^2 bytes.

    Raises:
        InputError: there is no batch, a group's activations cannot be read, or positions differ between batches.
    """
    streams = {group: _Stream(group, correlations, pooled) for group in groups}
    handles = [stream.listen() for stream in streams.values()]
    training = [child for child in module.modules() if child.training]
    seen = 0
    try:
        module.eval()
        for batch in data:
            module(*copies.beside(batch if isinstance(batch, tuple) else (batch,), module))
            seen += 1
    finally:
        for handle in handles:
            handle.remove()
        for child in training:
            child.training = True
    if not seen:
        raise InputError("there is no batch of training data to measure activations on; give at least 1")
    return {group: stream.result() for group, stream in streams.items()}


class _Stream:
    """Sums over the batches so far, of one group, merged as Chan, Golub and LeVeque (1979) do."""

    def __init__(self, group: Group, full: bool, pooled: bool) -> None:
        reader = next((reader for reader in group.readers if reader.alone), None)
        if reader is None:
            raise InputError(
                f"the activations of '{group.name}' cannot be read: no layer does nothing but read them; keep its "
                "width with ignore, or leave it out"
            )
        self.group = group
        self.reader: Reader = reader
        self.full = full
        self.pooled = pooled
        self.where = positions(reader.column.units, group.atom)
        self.samples = 0
        self.mean = self.l1 = self.moment = torch.zeros(())

    def listen(self) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.add((*args, *named.values())[0])

        return self.reader.module.register_forward_pre_hook(hook, prepend=True, with_kwargs=True)

    def add(self, x: Tensor) -> None:
        """Takes in what the reader is given: (samples, ..., units, ...)."""
        last = x.detach().movedim(self.reader.at, -1)
        picked = last.reshape(len(x), -1, last.shape[-1])[..., self.where.to(x.device)]
        values = picked.movedim(-1, 2).flatten(1, 2).double()
        if self.pooled:
            values = values.flatten(0, 1)[:, None]
        count, mean = len(values), values.mean(0)
        if self.samples and mean.shape != self.mean.shape:
            raise InputError(
                f"'{self.group.name}' has {len(self.mean)} positions in one batch and {len(mean)} in another; bring "
                "all samples to one size, or take maps=pooled"
            )
        off = (values - mean).transpose(0, 1)
        moment = off.mT @ off if self.full else off.square().sum(1)
        if self.samples:
            apart = mean - self.mean
            weight = count * self.samples / (count + self.samples)
            moment += weight * (apart[:, :, None] * apart[:, None] if self.full else apart.square())
            moment += self.moment
            mean = self.mean + apart * (count / (count + self.samples))
        self.l1 = self.l1.to(mean) + values.abs().sum(0)
        self.mean, self.moment, self.samples = mean, moment, self.samples + count

    def result(self) -> Statistics:
        if not self.samples:
            raise InputError(f"'{self.group.name}' is not read in a forward pass of the training data")
        squares = self.moment.diagonal(dim1=1, dim2=2) if self.full else self.moment
        mean = self.mean.mean(0)
        variance = squares.mean(0) / self.samples + (self.mean - mean).square().mean(0)
        correlation = self._correlation(squares) if self.full else None
        return Statistics(self.l1.mean(0) / self.samples, mean, variance, correlation)

    def _correlation(self, squares: Tensor) -> Tensor:
        """Position by position, so that no more than the sums themselves is kept: (width, width)."""
        total = torch.zeros_like(self.moment[0])
        counted = torch.zeros_like(total)
        for moment, own, mean in zip(self.moment, squares, self.mean, strict=True):
            varies = own > (STILL * mean).square()
            scale = torch.where(varies, own.rsqrt(), 0)
            total += moment * scale[:, None] * scale
            counted += varies[:, None] | varies
        return (total / counted.clamp(min=1)).clamp(-1, 1)
