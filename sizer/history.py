"""What is known of a run: its epochs, the best one, and those that nothing beats in both accuracy and size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True)
class Epoch:
    """One epoch of one run, measured after its removals.

    Attributes:
        epoch: from 1.
        train_loss, train_accuracy: means over the epoch's batches, as they were trained; without the penalty.
        val_loss, val_accuracy, test_loss, test_accuracy: in evaluation mode; accuracies are shares of 1, for regression
            R^2, or what the metric given to ``fit`` says. Test figures are reported and choose nothing; nan without a
            test part.
        widths: layer -> units, in the order in which they run.
        parameters: of the finished network.
        flops: of a forward pass of one sample.
        training_flops: of all training steps so far, forward and backward, and of what ``net.spent`` told of.
        seconds: of training so far, without evaluation.
        peak_memory: bytes, so far.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float
    widths: dict[str, int]
    parameters: int
    flops: int
    training_flops: int
    seconds: float
    peak_memory: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as they stand in JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Epoch:
        """The reverse of ``to_dict``."""
        return cls(**fields)


class Sized(Protocol):
    """Anything with an accuracy, a size and a place in time."""

    @property
    def epoch(self) -> int: ...
    @property
    def val_accuracy(self) -> float: ...
    @property
    def parameters(self) -> int: ...
    @property
    def flops(self) -> int: ...


S = TypeVar("S", bound=Sized)


def best_epoch(history: Iterable[S]) -> S:
    """The epoch of highest validation accuracy; of equal ones the one with fewest parameters, then the earliest."""
    return min(history, key=lambda e: (-e.val_accuracy, e.parameters, e.epoch))


def epochs_since_better(history: Sequence[Epoch]) -> int:
    """How many epochs have passed since the highest validation accuracy was first reached."""
    if not history:
        return 0
    return history[-1].epoch - max(history, key=lambda e: (e.val_accuracy, -e.epoch)).epoch


def front(history: Sequence[S]) -> list[S]:
    """The epochs that no other beats in validation accuracy at as few parameters, or at as few FLOPs."""
    chosen: dict[int, S] = {}
    for cost in ("parameters", "flops"):
        best = float("-inf")
        for epoch in sorted(history, key=lambda e: (getattr(e, cost), -e.val_accuracy, e.epoch)):
            if epoch.val_accuracy > best:
                best = epoch.val_accuracy
                chosen[epoch.epoch] = epoch
    return [chosen[at] for at in sorted(chosen)]


def choices(history: Sequence[S]) -> list[S]:
    """The epochs of the front, and the best one under any limit on parameters, on FLOPs or on both at once.

    What is no choice now is none later, whatever epochs are added.
    """
    chosen = {epoch.epoch: epoch for epoch in front(history)}
    # What was looked at so far comes first in any choice. It leaves steps: the fewest FLOPs at so many parameters.
    steps: list[tuple[int, float]] = []
    for epoch in sorted(history, key=lambda e: (-e.val_accuracy, e.parameters, e.epoch)):
        at = bisect_right(steps, (epoch.parameters, float("inf")))
        if at and steps[at - 1][1] <= epoch.flops:
            continue
        chosen[epoch.epoch] = epoch
        first = bisect_left(steps, (epoch.parameters, epoch.flops))
        while first < len(steps) and steps[first][1] >= epoch.flops:
            del steps[first]
        steps.insert(first, (epoch.parameters, epoch.flops))
    return [chosen[at] for at in sorted(chosen)]
