"""What a network is trained for: the loss that is lowered and the metric that is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from sizer.errors import InputError, unknown

Loss = Callable[[Any, Tensor], Tensor]
"""(outputs, targets) -> the mean over the batch, shape ()."""

Metric = Callable[[Any, Tensor], Tensor | float]
"""(outputs, targets) -> the mean over the batch, or one value a sample (N,); larger is better."""


class Score(Protocol):
    """A metric over a part, gathered batch by batch."""

    def add(self, outputs: Any, targets: Tensor) -> None: ...
    def value(self) -> float: ...


class Objective:
    """Loss and metric of a run.

    Args:
        targets: some of them; their type and shape say what the task is.
        loss: None for the task's: cross entropy of integers, mean squared error of floats.
        metric: one of ``METRICS``, a callable, or None for the task's: accuracy (over positions where targets have
            them) of integers, R^2 of floats.

    Raises:
        InputError: the metric is unknown, or none for such targets.
    """

    def __init__(self, targets: Tensor, loss: Loss | None = None, metric: str | Metric | None = None) -> None:
        floats = targets.is_floating_point()
        self._given = loss
        self._loss: Loss = loss or (squared_error if floats else cross_entropy)
        chosen = metric if metric is not None else "r2" if floats else "accuracy"
        if isinstance(chosen, str):
            if chosen not in METRICS:
                raise unknown("metric", chosen, METRICS)
            if (chosen == "r2") != floats:
                raise InputError(
                    f"metric '{chosen}' is for {'float' if chosen == 'r2' else 'integer'} targets, these are "
                    f"{targets.dtype}; leave it out, or give a callable (outputs, targets) -> Tensor"
                )
            self.score: Callable[[], Score] = METRICS[chosen]
        else:
            self.score = lambda: Mean(chosen)

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The mean loss of a batch; shape ()."""
        if self._given is None:
            return self._loss(outputs, targets)
        loss = self._given(outputs, targets)
        if not isinstance(loss, Tensor):
            raise InputError(f"the loss must be a tensor of shape (), got a {type(loss).__name__}")
        if loss.dim():
            raise InputError(f"the loss must be a scalar, got shape {tuple(loss.shape)}; end it with .mean()")
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise InputError("the loss has no gradient; compute it from the outputs, without detach() or item()")
        return loss


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Cross entropy of logits (N, classes) or maps (N, classes, H, W, ...), over samples and positions."""
    classes = aligned(outputs, targets)
    if outputs.dim() == 2 and outputs.stride(0) == 1 and len(outputs) > 1:
        # Class by class in memory, as a graph gives them: as positions of one sample it takes a tenth of the time.
        outputs, classes = outputs.t()[None], classes[None]
    try:
        return F.cross_entropy(outputs, classes)
    except IndexError:
        low, high = int(classes.min()), int(classes.max())
        raise InputError(
            f"labels go from {low} to {high}, but the network has outputs for 0 to {outputs.shape[1] - 1}"
        ) from None


def squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(outputs, aligned(outputs, targets))


def aligned(outputs: Any, targets: Tensor) -> Tensor:
    """The targets in the shape that outputs ask for.

    A label of a sample (N,) counts for all positions of its map (N, classes, H, W, ...). Floats may differ from the
    outputs by dimensions of size 1.

    Raises:
        InputError: they do not fit.
    """
    if not isinstance(outputs, Tensor):
        raise InputError(
            f"the network returns a {type(outputs).__name__}, not a tensor; give fit() a loss and a metric"
        )
    given, shape = targets.shape, outputs.shape
    if targets.is_floating_point():
        if shape != given and [n for n in shape if n != 1] == [n for n in given if n != 1]:
            targets = targets.reshape(shape)
        fits, wanted = shape == targets.shape, f"{tuple(shape)}"
    else:
        places = shape[2:]
        if len(given) == 1 and places:
            targets = targets.view(-1, *[1] * len(places)).expand(-1, *places)
        fits = shape[:1] + places == targets.shape
        if len(shape) < 2:
            raise InputError(f"outputs for classes must be (N, classes) or (N, classes, H, W), got {tuple(shape)}")
        wanted = f"{tuple(shape[:1] + places)}"
    if not fits:
        raise InputError(f"outputs of shape {tuple(shape)} need targets of shape {wanted}, got {tuple(given)}")
    return targets


class Accuracy:
    """The share of hits, over samples and positions; positions with a negative label, as -100, do not count."""

    def __init__(self) -> None:
        self.hits: Tensor | int = 0
        self.count: Tensor | int = 0

    def add(self, outputs: Any, targets: Tensor) -> None:
        classes = aligned(outputs, targets)
        self.hits = self.hits + (outputs.argmax(1) == classes).sum()
        self.count = self.count + (classes.numel() if targets.dim() == 1 else (classes >= 0).sum())

    def credit(self, hits: int, count: int) -> None:
        """Adds what was counted elsewhere."""
        self.hits, self.count = self.hits + hits, self.count + count

    def value(self) -> float:
        return float(self.hits) / max(1, int(self.count))


class RSquared:
    """1 - (squared errors) / (squared distances of the targets from their mean); 0 where targets do not vary."""

    def __init__(self) -> None:
        self.errors: Tensor | float = 0.0
        self.origin: Tensor | None = None
        self.sums: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0
        self.count = 0

    def add(self, outputs: Any, targets: Tensor) -> None:
        wanted = aligned(outputs, targets)
        self.errors = self.errors + (outputs - wanted).square().sum().double()
        exact = wanted.double()
        if self.origin is None:
            self.origin = exact[:1].clone()  # sums of what is left lose no digits, and nothing where all are equal
        if self.origin.shape[1:] != exact.shape[1:]:
            raise InputError(
                f"R^2 needs targets of one shape, got {tuple(exact.shape[1:])} after {tuple(self.origin.shape[1:])}; "
                "give fit() a metric of your own"
            )
        exact = exact - self.origin
        self.sums = self.sums + exact.sum(0)
        self.squares = self.squares + exact.square().sum()
        self.count += len(exact)

    def value(self) -> float:
        if not self.count:
            return 0.0
        sums = torch.as_tensor(self.sums)
        spread = float(self.squares) - float(sums.square().sum()) / self.count
        return 1.0 - float(self.errors) / spread if spread > 0 else 0.0


class MeanIoU:
    """Mean over classes of intersection over union, of the part as a whole.

    Classes that are neither in the targets nor among the predictions do not count, nor do positions whose label is no
    class of the network.
    """

    def __init__(self) -> None:
        self.confusion: Tensor | None = None

    def add(self, outputs: Any, targets: Tensor) -> None:
        classes, truth = outputs.shape[1], aligned(outputs, targets)
        known = (truth >= 0) & (truth < classes)
        pairs = truth[known] * classes + outputs.argmax(1)[known]
        counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        self.confusion = counts if self.confusion is None else self.confusion + counts

    def value(self) -> float:
        if self.confusion is None:
            return 0.0
        shared = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - shared
        there = union > 0
        return float((shared[there] / union[there]).mean()) if bool(there.any()) else 0.0


class Mean:
    """A callable's values, averaged over samples."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, outputs: Any, targets: Tensor) -> None:
        given, samples = self.metric(outputs, targets), len(targets)
        if not isinstance(given, (Tensor, float, int)):
            raise InputError(f"the metric must give a number or a tensor, got a {type(given).__name__}")
        values = torch.as_tensor(given).double()
        if values.shape not in ((), (samples,)):
            raise InputError(
                f"the metric must give one number, or one for each of the {samples} samples, got shape "
                f"{tuple(values.shape)}"
            )
        self.total = self.total + (values.sum() if values.dim() else values * samples)
        self.count += samples

    def value(self) -> float:
        return float(self.total) / max(1, self.count)


METRICS: dict[str, Callable[[], Score]] = {"accuracy": Accuracy, "miou": MeanIoU, "r2": RSquared}
