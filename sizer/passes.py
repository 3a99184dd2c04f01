"""One pass over a part of the data: training for an epoch, or measuring."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sizer import cost
from sizer.batches import Batch, shapes
from sizer.errors import InputError, unknown
from sizer.net import Net
from sizer.objectives import Accuracy, Objective
from sizer.stepper import Stepper

Augment = Callable[[Any], Any]

PRECISIONS = ("float32", "bfloat16")


class Forward:
    """The network's outputs under a precision, and what went wrong in the user's words where there are none.

    Args:
        module: the network.
        device: where it stands.
        precision: ``float32``, or ``bfloat16`` by autocast.
        example: inputs that it takes; others of another shape are told by it.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str, example: tuple[Tensor, ...]) -> None:
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.module = module
        self.device = device
        self.lower = precision == "bfloat16"
        self.seen = shapes(example)

    def precision(self) -> AbstractContextManager[Any]:
        """In which outputs and loss are computed."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.lower else nullcontext()

    def __call__(self, inputs: tuple[Tensor, ...]) -> Any:
        try:
            return self.module(*inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            if "more than 1 value per channel" in first:
                raise InputError(
                    f"a training batch of 1 sample (shape {shapes(inputs)}) is too small for batch normalisation; use "
                    "a batch_size of at least 2, and drop_last=True in a DataLoader of your own"
                ) from error
            if shapes(inputs) != self.seen:
                raise InputError(
                    f"the network fails on inputs of shape {shapes(inputs)}, the first ones had {self.seen} ({first}); "
                    "bring all samples to one shape"
                ) from error
            raise

    def check(self, inputs: tuple[Tensor, ...]) -> Any:
        """The outputs for an example, in evaluation mode; modes are left as they were.

        Raises:
            InputError: the network does not take such inputs.
        """
        training = [child for child in self.module.modules() if child.training]
        self.module.eval()
        try:
            with torch.no_grad(), self.precision():
                return self.module(*inputs)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            kinds = " and ".join(str(x.dtype).removeprefix("torch.") for x in inputs)
            raise InputError(
                f"the network fails on inputs of shape {shapes(inputs)} ({kinds}): {first}; give data that it takes"
            ) from error
        finally:
            for child in training:
                child.training = True


class Passes:
    """Passes of one run, and what they cost so far.

    Attributes:
        seconds: of training.
        training_flops: of all training steps, forward and backward, and of what the method computed beside them.
    """

    def __init__(
        self,
        net: Net,
        forward: Forward,
        objective: Objective,
        augment: Augment | None,
        accumulate: int,
    ) -> None:
        self.net = net
        self.forward = forward
        self.objective = objective
        self.augment = augment
        self.accumulate = accumulate
        self.seconds = 0.0
        self.training_flops = 0
        self._flops = cost.Flops(net.module, net.inputs)
        self._counted = (-1, (0, 0))

    def begin(self) -> None:
        """An epoch begins: the network grows, and sums start at 0."""
        self.net.module.train()
        began = time.perf_counter()
        self.net.before_epoch()
        self.seconds += time.perf_counter() - began
        self._score = self.objective.score()
        self._total = torch.zeros((), dtype=torch.float64, device=self.forward.device)
        self._seen = 0

    def train(self, part: Iterable[Batch], stepper: Stepper, after_step: Callable[[], None]) -> None:
        """The steps of an epoch."""
        began = time.perf_counter()
        for batches in _chunks(part, self.accumulate):
            samples = sum(len(targets) for _, targets in batches)
            stepper.zero_grad()
            for at, batch in enumerate(batches):
                self.aim(batch, samples, penalised=at == 0).backward()  # type: ignore[no-untyped-call]  # untyped there
            stepper.step()
            self.stepped(samples)
            after_step()
        self.seconds += time.perf_counter() - began

    def aim(self, batch: Batch, samples: int, *, penalised: bool = True) -> Tensor:
        """What a batch of a step of so many samples adds to that which is lowered: shape (), with its graph."""
        inputs, targets = batch
        with self.forward.precision():
            outputs = self.forward(self._augmented(inputs))
            loss = self.objective.loss(outputs, targets)
        with torch.no_grad():
            self._total.add_(loss, alpha=len(targets))
            self._score.add(outputs, targets)
        aim = loss if len(targets) == samples else loss * (len(targets) / samples)
        penalty = self.net.penalty() if penalised and self.net.method.sizes else None
        return aim if penalty is None or not penalty.requires_grad else aim + penalty

    def stepped(self, samples: int) -> None:
        """The optimiser has made a step on so many samples."""
        self._seen += samples
        self.training_flops += self.flops()[1] * samples
        self.net.after_step()

    def credit(self, total: float, hits: int, samples: int) -> None:
        """Counts steps that a stack made of the network at its present widths.

        Args:
            total: their losses times samples.
            hits: whose class was right.
            samples: of all of them.
        """
        assert isinstance(self._score, Accuracy)
        self._total += total
        self._score.credit(hits, samples)
        self._seen += samples
        self.training_flops += self.flops()[1] * samples

    def end(self) -> tuple[float, float]:
        """The epoch ends, in removal: mean loss and metric over its batches as they were trained, unpenalised."""
        began = time.perf_counter()
        mean = float(self._total) / self._seen
        if math.isfinite(mean):
            self.net.after_epoch()
        self.training_flops += self.net.spent
        self.net.spent = 0
        self.seconds += time.perf_counter() - began
        return mean, self._score.value()

    @torch.no_grad()
    def measure(self, part: Iterable[Batch] | None) -> tuple[float, float]:
        """Mean loss and metric of a part in evaluation mode; nan without one."""
        if part is None:
            return math.nan, math.nan
        self.net.module.eval()
        score = self.objective.score()
        total, seen = torch.zeros((), dtype=torch.float64, device=self.forward.device), 0
        for inputs, targets in part:
            with self.forward.precision():
                outputs = self.forward(inputs)
                loss = self.objective.loss(outputs, targets)
            total.add_(loss, alpha=len(targets))
            seen += len(targets)
            score.add(outputs, targets)
        return float(total) / seen, score.value()

    def flops(self) -> tuple[int, int]:
        """FLOPs of one sample at the present widths: forward, and forward with backward."""
        if self._counted[0] != self.net.resizes:
            self._counted = (self.net.resizes, self._flops())
        return self._counted[1]

    def _augmented(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.augment is None:
            return inputs
        given = self.augment(inputs[0] if len(inputs) == 1 else inputs)
        result = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        if len(result) != len(inputs) or not all(isinstance(x, Tensor) for x in result):
            kind = type(given).__name__
            raise InputError(f"augment must return what it is given, a batch's inputs, got a {kind}")
        if any(len(x) != len(inputs[0]) for x in result):
            raise InputError(
                f"augment must keep the {len(inputs[0])} samples of a batch, got {[len(x) for x in result]}"
            )
        return result


def _chunks(part: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    batches = iter(part)
    while chunk := list(islice(batches, size)):
        yield chunk
