"""Training steps of stacks on data that stays on the device; on a GPU they are recorded once and replayed.

Replaying a CUDA graph costs one launch for all of a step's operations. What changes from step to step stands in tensors
on the device: the place in the epoch, the strength of the method, the learning rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sizer import fused
from sizer.stack import Stack

WARM = 3
"""Steps taken one operation at a time before the recording, so that libraries have chosen how they compute."""


class Recorded:
    """The steps of an epoch, of all members of some stacks at once.

    They are real training steps, recorded or not: the first few on a GPU, those of a batch that is not full and all on
    a CPU run one operation at a time, by the same function. The stacks' gradients are not to be read.

    Args:
        stacks: they must keep their members; once a stack takes another's place, all is recorded anew.
        x, y: the training data on the stacks' device: (N, ...) each.
        batch_size: at least 1.

    Attributes:
        at: how many steps of the epoch were taken.
    """

    def __init__(self, stacks: Sequence[Stack], x: Tensor, y: Tensor, batch_size: int) -> None:
        self.stacks = list(stacks)
        self.x, self.y = x, y
        self.batch_size = batch_size
        self.at = 0
        self._orders = [torch.zeros(len(s.nets), len(x), dtype=torch.int64, device=x.device) for s in self.stacks]
        self._start = torch.zeros((), dtype=torch.int64, device=x.device)
        self._within = torch.arange(batch_size, device=x.device)
        self._stream = _stream(x.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._bound: list[Any] = []
        self._warm = 0

    def begin(self, orders: Sequence[Tensor], at: int = 0) -> None:
        """Starts an epoch, after the stacks' ``refresh``, or goes on in one.

        Args:
            orders: for each stack the permutations of its members: (k, N) int64.
            at: the steps of the epoch that were taken already.
        """
        for mine, order in zip(self._orders, orders, strict=True):
            mine.copy_(order)
        self.at = at
        self._start.fill_(at * self.batch_size)
        bound = [stack.bound_to() for stack in self.stacks]
        if bound != self._bound:
            self._bound, self._graph, self._warm = bound, None, 0

    def step(self) -> None:
        """The next step of every member."""
        for stack in self.stacks:
            stack.begin_step()
        first = self.at * self.batch_size
        self.at += 1
        if self._stream is None or first + self.batch_size > len(self.x):
            for stack, order in zip(self.stacks, self._orders, strict=True):
                self._move(stack, order[:, first : first + self.batch_size])
        elif self._warm < WARM:
            self._warm += 1
            self._aside(self._stream)
        else:
            if self._graph is None:
                self._graph = self._record(self._stream)
            self._graph.replay()

    def _move_all(self) -> None:
        """A full batch for every member, from where the device knows the epoch to be."""
        rows = self._start + self._within
        for stack, order in zip(self.stacks, self._orders, strict=True):
            self._move(stack, order.index_select(1, rows))
        self._start.add_(self.batch_size)

    def _move(self, stack: Stack, rows: Tensor) -> None:
        """A step of a stack on samples (k, B)."""
        x, y = (part.index_select(0, rows.flatten()).view(*rows.shape, *part.shape[1:]) for part in (self.x, self.y))
        stack.step(x, y)

    def _aside(self, stream: torch.cuda.Stream) -> None:
        """A step on the stream on which it is going to be recorded."""
        stream.wait_stream(torch.cuda.current_stream(self.x.device))
        with torch.cuda.stream(stream):
            self._move_all()
        torch.cuda.current_stream(self.x.device).wait_stream(stream)

    def _record(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """Records a step without taking it; gradients and all else in between live in the recording's own memory."""
        graph = torch.cuda.CUDAGraph()
        for generator in {id(g): g for stack in self.stacks for g in stack.generators}.values():
            graph.register_generator_state(generator)
        for stack in self.stacks:
            fused.clear(stack.optimizer)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._move_all()
        return graph


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types for it
