"""Several candidates of one graph side by side: their losses in one pass, their training in one program.

A candidate is a set of parameters of the graph; each tensor leads with the candidate. They share the synapses, and one
that does without some of them has these held at 0 by a mask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sizer.graph import Graph

Loss = Callable[[Tensor, Tensor], Tensor]
ENTRIES = 2**22
"""Numbers that a pass may hold of a level at once: rows are taken in so many pieces."""
MEMORY = 10
"""Steps that L-BFGS remembers."""


@dataclass
class Candidates:
    """Parameters of K candidates of a graph.

    Attributes:
        weight, bias, output_bias: as the graph's, (K, ...) each.
        kept: which synapses a candidate has, bool (K, synapses); None: all.
    """

    weight: Tensor
    bias: Tensor
    output_bias: Tensor
    kept: Tensor | None = None

    @classmethod
    def without(cls, graph: Graph, gone: Tensor) -> Candidates:
        """One for each mask of synapses that it does without: bool (K, synapses)."""
        count = len(gone)
        weight, bias, output_bias = (
            value.detach().expand(count, -1).clone() for value in (graph.weight, graph.bias, graph.output_bias)
        )
        return cls(weight.masked_fill(gone, 0), bias, output_bias, ~gone)

    @torch.no_grad()
    def give(self, graph: Graph, at: int) -> None:
        """Puts a candidate's parameters into the graph, in place."""
        for mine, theirs in zip(self.tensors, (graph.weight, graph.bias, graph.output_bias), strict=True):
            theirs.copy_(mine[at])

    @classmethod
    def of(cls, tensors: Iterable[Tensor], kept: Tensor | None) -> Candidates:
        """From ``tensors``."""
        weight, bias, output_bias = tensors
        return cls(weight, bias, output_bias, kept)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.bias, self.output_bias

    def __len__(self) -> int:
        return len(self.weight)


def each_loss(graph: Graph, of: Candidates, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The mean loss of each candidate on a batch: (K,), with its graph."""
    outputs = graph.candidates(x, *of.tensors)
    return torch.stack([loss(own, y) for own in outputs])


@torch.no_grad()
def losses(graph: Graph, of: Candidates, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The mean loss of each candidate over all rows: float64 (K,)."""
    total = torch.zeros(len(of), dtype=torch.float64, device=x.device)
    for rows, targets in pieces(graph, len(of), x, y):
        total += each_loss(graph, of, rows, targets, loss).double() * len(targets)
    return total / len(y)


@torch.no_grad()
def losses_without(graph: Graph, gone: Tensor, x: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The mean loss over all rows of the graph without some synapses: masks, bool (K, synapses) -> float64 (K,)."""
    total = torch.zeros(len(gone), dtype=torch.float64, device=x.device)
    for rows, targets in pieces(graph, len(gone), x, y):
        own = torch.stack([loss(each, targets) for each in graph.without(rows, gone)])
        total += own.double() * len(targets)
    return total / len(y)


def pieces(graph: Graph, candidates: int, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows in pieces that fit a processor's memory."""
    size = max(256, ENTRIES // (candidates * (graph.neurons + graph.outputs)))
    yield from zip(torch.split(x, size), torch.split(y, size), strict=True)


def adam(
    graph: Graph, start: Candidates, x: Tensor, y: Tensor, loss: Loss, *, steps: int, batch: int, rate: float
) -> Candidates:
    """Trains the candidates by so many steps of Adam, on the same batches, drawn from the default generator.

    Each is trained as it would be alone: Adam's arithmetic is that of single entries.
    """
    now = Candidates.of((value.clone().requires_grad_() for value in start.tensors), start.kept)
    optimizer = torch.optim.Adam(now.tensors, lr=rate, fused=True)
    for _ in range(steps):
        rows = torch.randint(len(x), (min(batch, len(x)),), device=x.device)
        optimizer.zero_grad()
        each_loss(graph, now, x[rows], y[rows], loss).sum().backward()  # type: ignore[no-untyped-call]  # untyped there
        _still(now)
        optimizer.step()
    return Candidates.of((value.detach() for value in now.tensors), start.kept)


def _still(of: Candidates) -> None:
    if of.kept is not None and of.weight.grad is not None:
        of.weight.grad.mul_(of.kept)


def lbfgs(graph: Graph, start: Candidates, x: Tensor, y: Tensor, loss: Loss, *, steps: int) -> tuple[Candidates, int]:
    """Trains the candidates by so many steps of L-BFGS on all rows, each by its own curvature and step length.

    A step is halved until it lowers the loss (Armijo's condition), at most 10 times; after that the candidate stays.

    Returns:
        The candidates, and how often losses and gradients of all of them were computed.
    """
    sizes = [value.shape[1] for value in start.tensors]

    def at(point: Tensor) -> tuple[Tensor, Tensor]:
        parts = Candidates.of((value.detach().requires_grad_() for value in torch.split(point, sizes, 1)), start.kept)
        total = torch.zeros(len(start), device=x.device)
        for rows, targets in pieces(graph, len(start), x, y):
            own = each_loss(graph, parts, rows, targets, loss) * (len(targets) / len(y))
            own.sum().backward()  # type: ignore[no-untyped-call]  # untyped there
            total += own.detach()
        _still(parts)
        return total, torch.cat([_gradient(value) for value in parts.tensors], 1)

    point = torch.cat(start.tensors, 1)
    (value, slope), passes = at(point), 1
    memory: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    for _ in range(steps):
        way = _direction(slope, memory)
        falls = (way * slope).sum(1)
        way = torch.where((falls < 0)[:, None], way, -slope)
        falls = (way * slope).sum(1)
        length = torch.ones_like(value)
        if not memory:
            length = length / slope.abs().sum(1).clamp(min=1)
        for _ in range(10):
            there = point + length[:, None] * way
            value_there, slope_there = at(there)
            passes += 1
            good = value_there <= value + 1e-4 * length * falls
            if bool(good.all()):
                break
            length = torch.where(good, length, length / 2)
        stay = good[:, None]
        step, change = torch.where(stay, there - point, 0), torch.where(stay, slope_there - slope, 0)
        curved = (step * change).sum(1)
        memory.append((step, change, torch.where(curved > 1e-12, 1 / curved.clamp(min=1e-12), 0)))
        point, slope = point + step, slope + change
        value = torch.where(good, value_there, value)
    return Candidates.of(torch.split(point, sizes, 1), start.kept), passes


def _gradient(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def _direction(slope: Tensor, memory: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The two loops of L-BFGS (Nocedal 1980), over rows: (K, parameters)."""
    way, shares = -slope, []
    for step, change, inverse in reversed(memory):
        share = inverse * (step * way).sum(1)
        way = way - share[:, None] * change
        shares.append(share)
    if memory:
        step, change, inverse = memory[-1]
        scale = (step * change).sum(1) / change.square().sum(1).clamp(min=1e-30)
        way = torch.where(inverse > 0, scale, 1.0)[:, None] * way
    for (step, change, inverse), share in zip(memory, reversed(shares), strict=True):
        way = way + step * (share - inverse * (change * way).sum(1))[:, None]
    return way
