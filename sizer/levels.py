"""The levels of a graph of neurons: which there are, of which products each is the sum, and what is no graph at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from sizer.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.clone, "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid,
    "selu": torch.selu,
}  # fmt: skip
"""What a neuron may do with its sum; its place here is its code in `Graph.kind`."""
KINDS = tuple(ACTIVATIONS)
"""Their names by that code."""


class Synapses(Protocol):
    """What levels are made of: a ``sizer.graph.Graph``."""

    inputs: int
    outputs: int
    source: Tensor
    target: Tensor
    kind: Tensor

    @property
    def neurons(self) -> int: ...
    def levels(self) -> list[int]: ...


def activated(total: Tensor, kinds: tuple[tuple[str, Tensor | None], ...]) -> Tensor:
    """A level's outputs: of each activation the rows that have it, None for all."""
    if len(kinds) == 1:
        return ACTIVATIONS[kinds[0][0]](total)
    result = total
    for name, rows in kinds:
        assert rows is not None
        result = result.index_copy(-2, rows, ACTIVATIONS[name](total.index_select(-2, rows)))
    return result


@dataclass(frozen=True)
class Block:
    """Synapses as a matrix of the neurons and the sources that have any."""

    synapses: Tensor
    places: Tensor
    rows: int
    columns: int

    def product(self, weight: Tensor, values: Tensor) -> Tensor:
        """(..., synapses of the graph) by (columns, N), or by (K, columns, N) -> (..., rows, N)."""
        chosen, lead = weight.index_select(-1, self.synapses), weight.shape[:-1]
        matrix = chosen.new_zeros(*lead, self.rows * self.columns).index_copy(-1, self.places, chosen)
        matrix = matrix.view(*lead, self.rows, self.columns)
        if values.dim() > 2 or values.is_contiguous():
            return matrix @ values
        # Inputs, which lie sample by sample: in this order the product is three times faster.
        rows = (values.t() @ matrix.view(-1, self.columns).t()).t().contiguous()
        return rows.view(*lead, self.rows, -1)


@dataclass(frozen=True)
class Onto:
    """Which rows of a level a product has: ``rows``, None for all; ``first`` to ``end`` of a product of all levels."""

    rows: Tensor | None
    first: int = 0
    end: int = 0

    def put(self, total: Tensor, product: Tensor, width: int) -> Tensor:
        if self.rows is None:
            return total + product
        whole = total.expand(*product.shape[:-2], width, product.shape[-1])
        return whole.index_add(-2, self.rows, product.to(whole.dtype))  # under autocast products are shorter


@dataclass(frozen=True)
class Level:
    """Neurons that wait for none of each other, or the outputs."""

    first: int
    end: int
    last: bool
    fed: Onto | None
    block: Block | None
    onto: Onto
    sources: tuple[tuple[int, Tensor | None], ...]
    kinds: tuple[tuple[str, Tensor | None], ...]

    @property
    def width(self) -> int:
        return self.end - self.first


@dataclass(frozen=True)
class Levels:
    """What follows from the synapses: the levels, and of which products they are sums."""

    made_of: tuple[tuple[Tensor, int], ...]
    columns: Tensor | None
    inward: Block
    levels: tuple[Level, ...]

    def feeding(self, input: Tensor) -> Tensor:
        """The inputs that feed anything, a row each: (columns, N)."""
        x = input.flatten(1)
        return (x if self.columns is None else x.index_select(1, self.columns)).t()

    def is_of(self, graph: Synapses) -> bool:
        now = (graph.source, graph.target, graph.kind)
        return all(a is b and b._version == was for (a, was), b in zip(self.made_of, now, strict=True))

    @classmethod
    def of(cls, graph: Synapses) -> Levels:
        device, inputs, neurons = graph.source.device, graph.inputs, graph.neurons
        source, target, kind = graph.source.cpu(), graph.target.cpu() - inputs, graph.kind.cpu()
        of_level = torch.tensor([*graph.levels(), 2**31])
        starts = [0, *[int(at) + 1 for at in of_level[:neurons].diff().nonzero()[:, 0]], neurons]
        bounds = [*pairwise(starts), (neurons, neurons + graph.outputs)]

        def here(places: Tensor) -> Tensor:
            return places.to(device)

        inward = source < inputs
        columns, rows = distinct(source[inward]), distinct(target[inward])
        block = Block(
            here(inward.nonzero()[:, 0]),
            here(torch.searchsorted(rows, target[inward]) * len(columns) + torch.searchsorted(columns, source[inward])),
            len(rows), len(columns),
        )  # fmt: skip
        levels: list[Level] = []
        for first, end in bounds:
            inside = (target >= first) & (target < end)
            direct = rows[(rows >= first) & (rows < end)]
            begin = int(torch.searchsorted(rows, torch.tensor(first)))
            fed = None
            if len(direct):
                fed = Onto(None if len(direct) == end - first else here(direct - first), begin, begin + len(direct))
            behind, taken, parts = inside & ~inward, distinct(source[inside & ~inward] - inputs), []
            for at, (low, high) in enumerate(bounds[: len(levels)]):
                own = taken[(taken >= low) & (taken < high)]
                if len(own):
                    parts.append((at, None if len(own) == high - low else here(own - low)))
            reached = distinct(target[behind])
            inner = None
            if len(reached):
                places = torch.searchsorted(reached, target[behind]) * len(taken)
                places += torch.searchsorted(taken, source[behind] - inputs)
                inner = Block(here(behind.nonzero()[:, 0]), here(places), len(reached), len(taken))
            levels.append(
                Level(
                    first, end, first == neurons, fed, inner,
                    Onto(None if len(reached) == end - first else here(reached - first)), tuple(parts),
                    tuple(
                        (KINDS[code], None if (kind[first:end] == code).all() else
                         here((kind[first:end] == code).nonzero()[:, 0]))
                        for code in distinct(kind[first:end]).tolist()
                    ),
                )
            )  # fmt: skip
        made_of = tuple((value, value._version) for value in (graph.source, graph.target, graph.kind))
        every = len(columns) == inputs
        return cls(made_of, None if every else here(columns), block, tuple(levels))


def distinct(places: Tensor) -> Tensor:
    """Each place once, in rising order."""
    result: Tensor = places.unique()  # type: ignore[no-untyped-call]  # torch has no types for it
    return result


def renumbered(places: Tensor, inputs: int, order: Tensor) -> Tensor:
    """Places after neurons are put in another order: ``order[i]`` is the neuron that comes to stand i-th."""
    to = torch.empty_like(order)
    to[order] = torch.arange(len(order))
    result = places.clone()
    neurons = (places >= inputs) & (places < inputs + len(order))
    result[neurons] = inputs + to[places[neurons] - inputs]
    return result


def levels_of(pairs: Tensor, inputs: int, neurons: int) -> Tensor:
    """Of each neuron the length of the longest way to it over neurons, int64 (neurons,).

    Args:
        pairs: (from, to) of each synapse, int64 (synapses, 2).
        inputs, neurons: how many.

    Raises:
        InputError: there is a cycle; the message names it.
    """
    inner = pairs[(pairs[:, 0] >= inputs) & (pairs[:, 1] < inputs + neurons)] - inputs
    level = torch.zeros(neurons, dtype=torch.int64)
    for _ in range(neurons + 1):
        if not len(inner):
            return level
        after = level.scatter_reduce(0, inner[:, 1], level[inner[:, 0]] + 1, "amax")
        if torch.equal(after, level):
            return level
        level = after
    raise InputError(f"a graph must have no cycle, got {' -> '.join(map(str, _cycle(inner, inputs)))}")


def _cycle(inner: Tensor, inputs: int) -> list[int]:
    """A cycle, as places, its first again at its end."""
    feeders: dict[int, list[int]] = {}
    for source, target in inner.tolist():
        feeders.setdefault(target, []).append(source)
    while thin := [t for t, sources in feeders.items() if not any(s in feeders for s in sources)]:
        feeders = {t: sources for t, sources in feeders.items() if t not in thin}
    way = [next(iter(feeders))]
    while way[-1] not in way[:-1]:
        way.append(next(s for s in feeders[way[-1]] if s in feeders))
    return [inputs + at for at in reversed(way[way.index(way[-1]) :])]


def check(pairs: Tensor, inputs: int, neurons: int, outputs: int) -> None:
    """Refuses what is no graph that computes something.

    Raises:
        InputError: see ``Graph``.
    """
    if min(inputs, neurons, outputs) < 1:
        raise InputError(f"a graph needs 1 or more inputs, neurons and outputs, got {inputs}, {neurons} and {outputs}")
    end = inputs + neurons
    for source, target in pairs[(pairs[:, 0] < 0) | (pairs[:, 0] >= end)].tolist():
        raise InputError(f"a synapse starts at an input or a neuron, 0 to {end - 1}, got {source} -> {target}")
    for source, target in pairs[(pairs[:, 1] < inputs) | (pairs[:, 1] >= end + outputs)].tolist():
        raise InputError(
            f"a synapse ends at a neuron or an output, {inputs} to {end + outputs - 1}, got {source} -> {target}"
        )
    seen: set[tuple[int, int]] = set()
    for source, target in pairs.tolist():
        if (source, target) in seen:
            raise InputError(f"a synapse must be there once, got {source} -> {target} twice")
        seen.add((source, target))
    levels_of(pairs, inputs, neurons)
    fed, feeds = set(pairs[:, 1].tolist()), set(pairs[:, 0].tolist())
    for place in range(inputs, end + outputs):
        if place not in fed:
            kind = "neuron" if place < end else "output"
            raise InputError(f"a graph must be connected: nothing feeds {kind} {place}; give it a synapse")
    for place in range(inputs, end):
        if place not in feeds:
            raise InputError(f"a graph must be connected: neuron {place} feeds nothing; give it a synapse")
