"""Where batches come from: tensors that stay on the device, or anyone's Dataset or DataLoader."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sizer.datasets import Data
from sizer.errors import InputError

EVALUATION_BATCH = 1024

Batch = tuple[tuple[Tensor, ...], Tensor]
"""The positional inputs, and the targets."""


@dataclass(frozen=True, eq=False)
class Loaders:
    """One's own data in two or three parts, each a torch Dataset or a DataLoader.

    A Dataset is batched by ``fit``, and shuffled where it is the training part; a DataLoader is used as it is. A batch
    is ``(x, y)``: x a tensor, or a tuple of the network's positional inputs; y a tensor, whose type and shape say what
    the task is: integers (N,) are classes, integers (N, H, W, ...) classes of positions, floats are regressed. They are
    moved to the device batch by batch, floats as the network's own type and integer targets as int64.

    Attributes:
        train: what the network is trained on.
        val: what every choice is made on.
        test: what is reported and chooses nothing; without it, test figures are nan.
    """

    train: Dataset[Any] | DataLoader[Any]
    val: Dataset[Any] | DataLoader[Any]
    test: Dataset[Any] | DataLoader[Any] | None = None

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if part is None and name == "test":
                continue
            if not isinstance(part, (Dataset, DataLoader)):
                raise InputError(f"{name} must be a torch Dataset or DataLoader, got {type(part).__name__}")
            samples = _length(part)
            if samples == 0:
                raise InputError(f"the {name} part is empty; give it at least 1 sample")
            if samples is None and not isinstance(part, (DataLoader, IterableDataset)):
                raise InputError(
                    f"the {name} part, a {type(part).__name__}, needs __len__; or make it an IterableDataset"
                )


class Resident:
    """A part whose tensors stay on the device; batches are copies, which a network may change.

    Args:
        x, y: (N, ...) each.
        device: where they go.
        batch_size: of a training part, gathered batch by batch along a permutation; a last batch of a single sample is
            left out. None for a part that is evaluated.
    """

    def __init__(self, x: Tensor, y: Tensor, device: torch.device, batch_size: int | None = None) -> None:
        self.x, self.y = x.to(device), y.to(device)
        self.batch_size = batch_size
        size = batch_size or EVALUATION_BATCH
        alone = batch_size is not None and len(x) % size == 1 and len(x) > 1
        self.starts = range(0, len(x) - alone, size)
        self.batches: int | None = len(self.starts)
        self.generators: list[torch.Generator] = []

    def example(self) -> Batch:
        return (self.x[:2].clone(),), self.y[:2].clone()

    def __iter__(self) -> Iterator[Batch]:
        if self.batch_size is None:
            for start in self.starts:
                some = slice(start, start + EVALUATION_BATCH)
                yield (self.x[some].clone(),), self.y[some].clone()
            return
        order = self.order()
        for at in range(len(self.starts)):
            yield self.batch(order, at)

    def order(self) -> Tensor:
        """An epoch's order of a training part, drawn from the default generator: (N,) int64."""
        return torch.randperm(len(self.x), device=self.x.device)

    def batch(self, order: Tensor, at: int) -> Batch:
        """A training part's batch, from 0, in an order."""
        rows = order[self.starts[at] :][: self.batch_size]
        return (self.x.index_select(0, rows),), self.y.index_select(0, rows)

    def inputs(self) -> Iterator[tuple[Tensor, ...]]:
        """The inputs alone, in their own order."""
        for inputs, _ in self.examples():
            yield inputs

    def examples(self) -> Iterator[Batch]:
        """Inputs and targets, in their own order."""
        size = self.batch_size or EVALUATION_BATCH
        for rows, targets in zip(torch.split(self.x, size), torch.split(self.y, size), strict=True):
            yield (rows.clone(),), targets.clone()


class Loaded:
    """A part that a DataLoader gives, ours around a Dataset or the user's own.

    Args:
        name: "train", "val" or "test".
        source: a Dataset or a DataLoader.
        device: where batches go.
        dtype: what floats become.
        batch_size: of our own DataLoader.

    Attributes:
        batches: of an epoch, where that is known.
        generators: the user's own random generators, whose state a run that goes on needs.
    """

    def __init__(self, name: str, source: Any, device: torch.device, dtype: torch.dtype, batch_size: int) -> None:
        self.name, self.device, self.dtype = name, device, dtype
        training, streams = name == "train", isinstance(source, IterableDataset)
        self.leave_one_out = training and streams and batch_size > 1  # of others drop_last leaves it out
        if isinstance(source, DataLoader):
            self.loader = source
        else:
            alone = training and not streams and len(source) % batch_size == 1 and len(source) > 1
            self.loader = DataLoader(
                source, batch_size, shuffle=training and not streams, drop_last=alone, pin_memory=device.type == "cuda"
            )
        self.batches = _length(self.loader)
        found = (self.loader.generator, getattr(self.loader.sampler, "generator", None))
        self.generators = list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())

    def example(self) -> Batch:
        """Two samples, or one twice."""
        inputs, targets = next(iter(self))
        if len(targets) == 1:
            return tuple(torch.cat((x, x)) for x in inputs), torch.cat((targets, targets))
        return tuple(x[:2].clone() for x in inputs), targets[:2].clone()  # a view would keep the batch

    def __iter__(self) -> Iterator[Batch]:
        seen = 0
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                break
            except RuntimeError as error:
                raise _unequal(error, self.name) or error from None
            inputs, targets = _pair(batch, self.name)
            if self.leave_one_out and seen and len(targets) == 1:
                continue
            seen += 1
            yield tuple(self._moved(x) for x in inputs), self._moved(targets, torch.int64)
        if not seen:
            raise InputError(f"the {self.name} part gave no batch; give it at least 1 sample (and drop_last=False)")

    def inputs(self) -> Iterator[tuple[Tensor, ...]]:
        """The inputs alone, in the order in which they come."""
        for inputs, _ in self:
            yield inputs

    def examples(self) -> Iterator[Batch]:
        """Inputs and targets, in the order in which they come."""
        return iter(self)

    def _moved(self, value: Tensor, integers: torch.dtype | None = None) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else integers
        return value.to(self.device, dtype, non_blocking=True)


Part = Resident | Loaded


def parts_of(data: Data | Loaders, device: torch.device, dtype: torch.dtype, batch_size: int) -> dict[str, Part | None]:
    """The parts ``train``, ``val`` and ``test``, to be iterated once an epoch; None for a test part that is not there.

    Raises:
        InputError: it is neither ``Data`` nor ``Loaders``.
    """
    if isinstance(data, Data):
        return {
            "train": Resident(data.x_train, data.y_train, device, batch_size),
            "val": Resident(data.x_val, data.y_val, device),
            "test": Resident(data.x_test, data.y_test, device),
        }
    if not isinstance(data, Loaders):
        raise InputError(
            f"data must be what sizer.datasets.load gives, or sizer.Loaders(train, val), got {type(data).__name__}"
        )
    sources = {name: getattr(data, name) for name in ("train", "val", "test")}
    return {
        name: None if source is None else Loaded(name, source, device, dtype, batch_size)
        for name, source in sources.items()
    }


def shapes(values: tuple[Tensor, ...] | list[Tensor]) -> str:
    """The shapes of samples, without the batch: ``(1, 8, 8)``, several joined by "and"."""
    return " and ".join(str(tuple(value.shape[1:])) for value in values)


def _length(part: Any) -> int | None:
    try:
        return len(part)
    except TypeError:  # an IterableDataset need not know
        return None


def _unequal(error: RuntimeError, name: str) -> InputError | None:
    """What a failed collation says, in one line; None if it was something else."""
    text = str(error)
    if not re.search(r"equal size|resize storage", text):
        return None
    found = re.search(r"but got (\[.*)", text)
    seen = f": {found[1]}" if found else ""
    return InputError(
        f"the samples of the {name} part have different shapes{seen}; bring them to one shape, or give a DataLoader "
        "with a collate_fn of its own"
    )


def _pair(batch: Any, name: str) -> tuple[list[Tensor], Tensor]:
    wanted = f"a batch of the {name} part must be (x, y): x a tensor or a tuple of tensors, y a tensor"
    if not (isinstance(batch, (list, tuple)) and len(batch) == 2):
        size = f" of {len(batch)}" if isinstance(batch, Sized) else ""
        raise InputError(f"{wanted}; got a {type(batch).__name__}{size}")
    x, y = batch
    inputs = list(x) if isinstance(x, (list, tuple)) else [x]
    for value in (*inputs, y):
        if not isinstance(value, Tensor):
            raise InputError(f"{wanted}; got a {type(value).__name__} in it")
        if value.dim() == 0:
            raise InputError(f"{wanted}, with one entry a sample; got a single number")
    if not inputs:
        raise InputError(f"{wanted}; got no input")
    if any(len(value) != len(y) for value in inputs):
        raise InputError(f"{wanted}, of equally many samples; got {[len(value) for value in inputs]} x and {len(y)} y")
    return inputs, y
