"""Random networks out of every piece that can be sized, for property tests.

A ``Plan`` says what to stack on which input; the same plan builds the same network again, with other weights if asked.
Every bias, shift and running statistic is random and not zero, so that a unit that dies leaves something behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.sizer.pieces import CONV, MAPS, TOKENS, VECTORS, Shape, disturb, norm

INPUTS: dict[str, Shape] = {"signal": (3, 8), "image": (2, 6, 6), "volume": (2, 4, 4, 4), "words": (6,), "vector": (5,)}
BATCH = 3


@dataclass(frozen=True)
class Plan:
    """What a random network is made of.

    Attributes:
        kind: of the input, a key of ``INPUTS``.
        pieces: which piece comes next, as an index among those that take what there is.
        second: whether a second input is joined to the first layer's output.
        side: whether something from the middle is an output, too, by a layer of its own.
        seed: of the pieces' sizes and kinds, and of the weights.
    """

    kind: str
    pieces: tuple[int, ...]
    second: bool
    side: bool
    seed: int

    def build(self, weights: int = 0) -> RandomNetwork:
        torch.manual_seed(self.seed + 1000 * weights)
        network = RandomNetwork(self)
        disturb(network)
        return network

    def inputs(self, batch: int = BATCH) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (batch, *INPUTS[self.kind])
        if self.kind == "words":
            first = torch.randint(0, 7, shape, generator=generator)
        else:
            first = torch.randn(shape, generator=generator)
        return (first, torch.randn(batch, 4, generator=generator)) if self.second else (first,)


class RandomNetwork(nn.Module):
    """What a plan says: a stem, the pieces, heads."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        draw = Random(plan.seed)
        first, *_ = plan.inputs()
        stem: nn.Module
        if plan.kind == "words":
            stem = nn.Embedding(7, 6)
        elif plan.kind == "vector":
            stem = nn.Linear(5, 6)
        else:
            sides = first.dim() - 2
            stem = nn.Sequential(CONV[sides](first.shape[1], 6, 3, padding=1), norm(6, sides, draw), nn.ReLU())
        self.stem = stem
        self.pieces = nn.ModuleList()
        self.second = nn.Linear(4, 6) if plan.second else None
        x, tokens = stem(first), plan.kind == "words"
        self.tokens = tokens
        self.middle = draw.randrange(len(plan.pieces)) if plan.side and plan.pieces else -1
        for at, number in enumerate(plan.pieces):
            table: Mapping[str, Any] = TOKENS if tokens else MAPS if x.dim() > 2 else VECTORS
            name = list(table)[number % len(table)]
            piece = table[name](tuple(x.shape[1:]), draw)
            self.pieces.append(piece)
            x = piece.train()(x)
            tokens = name == "to_tokens" or (tokens and not name.startswith("to_"))
            if at == self.middle:
                self.aside = nn.Linear(x.shape[1 if x.dim() != 3 or not tokens else 2], 2)
                self.aside_over = 1 if tokens else 2
        self.out = nn.Linear(math.prod(x.shape[1:]), 3)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Any:
        x = self.stem(first)
        if self.second is not None and second is not None:
            units = self.second(second)
            x = x + units[:, None] if self.tokens else x + units.view(*units.shape, *([1] * (x.dim() - 2)))
        aside = None
        for at, piece in enumerate(self.pieces):
            x = piece(x)
            if at == self.middle:
                aside = self.aside(x.flatten(2).mean(self.aside_over) if x.dim() > 2 else x)
        result = self.out(x.flatten(1))
        return result if aside is None else {"result": result, "aside": [aside]}


@st.composite
def plans(draw: st.DrawFn, most: int = 4) -> Plan:
    """Any random network."""
    return Plan(
        draw(st.sampled_from(list(INPUTS))),
        tuple(draw(st.lists(st.integers(0, 189), min_size=1, max_size=most))),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 999)),
    )


def outputs(value: Any) -> list[Tensor]:
    """All tensors that a network returned, detached."""
    if isinstance(value, Tensor):
        return [value.detach()]
    return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in outputs(part)]
