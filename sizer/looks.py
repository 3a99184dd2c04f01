"""Numbers that a device has worked out, read without stopping it."""

from __future__ import annotations

import torch
from torch import Tensor

DELAY = 4
"""So many steps later a GPU has long copied what was asked for."""


class Looks:
    """One look at a time: asked for at a step, answered at a later one, the same in every run.

    Args:
        delay: the steps between the two; None for ``DELAY`` on a GPU and none on the CPU.
    """

    def __init__(self, delay: int | None = None) -> None:
        self.delay = delay
        self._due = 0
        self._numbers: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def ask(self, step: int, numbers: Tensor) -> None:
        """Starts to copy the numbers to the host; a look that is still on the way is waited for instead."""
        if self._numbers is not None:
            return
        self._due = step + ((DELAY if numbers.is_cuda else 0) if self.delay is None else self.delay)
        self._numbers = numbers.to("cpu", non_blocking=True)
        if numbers.is_cuda:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types for it
            self._copied.record(torch.cuda.current_stream(numbers.device))

    def answer(self, step: int) -> Tensor | None:
        """The numbers, on the host; None where none were asked for or it is too early."""
        numbers = self._numbers
        if numbers is None or step < self._due:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        self.forget()
        return numbers

    def forget(self) -> None:
        """Drops a look that is on the way: what it looked at has changed."""
        self._numbers = self._copied = None
