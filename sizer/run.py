"""A run: its epochs, one after the other, trained, measured, kept and taken up again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sizer import cost
from sizer.batches import Batch, Part
from sizer.checkpoint import load_run, save_run, save_tensors
from sizer.errors import InputError
from sizer.history import Epoch, best_epoch, choices, epochs_since_better
from sizer.net import Net
from sizer.passes import Passes
from sizer.progress import Bar
from sizer.stepper import Stepper

STATE = "state.safetensors"
Measures = dict[str, tuple[float, float]]
"""``val`` and ``test`` -> mean loss and metric."""


@dataclass
class Run:
    """What came of a training run.

    Attributes:
        net: the network as it stands after the last epoch; ``net.finish()`` makes it plain.
        history: its epochs.
        status: ``complete``; ``collapsed``: a layer would have lost its last unit, and training ended as a valid
            result; ``diverged``: the loss, or the validation metric, was no longer finite.
        reason: why it ended early, be it complete (its patience ended) or not; else empty.
    """

    net: Net
    history: list[Epoch] = field(default_factory=list)
    status: str = "complete"
    reason: str = ""

    @property
    def best(self) -> Epoch | None:
        """The best validation epoch; None if there is no epoch."""
        return best_epoch(self.history) if self.history else None


class Training:
    """The epochs of a run: trained, measured, kept, reported.

    Args:
        net: the network, attached.
        parts: of the data, as ``parts_of`` gives them.
        passes: over them.
        make_stepper: the optimiser, for the widths that the network has by then.
        seed: of each epoch's stream of random numbers.
        folder, on_epoch, start: as ``fit`` takes them.
        knob, patience: likewise.
    """

    def __init__(
        self,
        net: Net,
        parts: dict[str, Part | None],
        passes: Passes,
        make_stepper: Callable[[], Stepper],
        *,
        seed: int,
        folder: Path | None,
        on_epoch: Callable[[Epoch], None] | None,
        knob: Callable[[int], float] | None,
        patience: int | None,
        start: Path | None = None,
    ) -> None:
        self.net = net
        self.parts = parts
        self.passes = passes
        self.knob = knob
        self.patience = patience
        self.so_far = Run(net)
        self._seed = seed
        self._folder = folder
        self._start = start
        self._on_epoch = on_epoch
        self._make_stepper = make_stepper
        net.training_data, net.validate, net.examples = self._inputs, self._score, self._examples
        net.loss = passes.objective.loss

    @property
    def going(self) -> bool:
        """Whether another epoch is to be trained."""
        run, net = self.so_far, self.net
        assert net.epochs is not None
        return run.status == "complete" and not run.reason and net.epoch < net.epochs

    @property
    def train_part(self) -> Part:
        part = self.parts["train"]
        assert part is not None
        return part

    def run(self, progress: bool) -> Run:
        """All epochs, one after the other."""
        self.begin()
        net = self.net
        assert net.epochs is not None
        bar = Bar(net.epochs, net.epoch, net.steps_per_epoch) if progress else None
        try:
            while self.going:
                self.begin_epoch()
                self.passes.train(self.train_part, self.stepper, bar.step if bar is not None else _nothing)
                self.close_epoch()
                record = self.end_epoch()
                if bar is not None and record is not None:
                    bar.end_epoch(record)
        finally:
            if bar is not None:
                bar.close()
        return self.so_far

    def begin(self) -> None:
        """Makes the optimiser, takes up what the folder keeps, and tells of the epochs that are done already."""
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
        self.stepper = self._resumed(self._folder, self._make_stepper)
        if self._on_epoch is not None:
            for epoch in self.so_far.history:
                self._on_epoch(epoch)

    def begin_epoch(self) -> None:
        """Seeds the epoch's random numbers, sets the knob and lets the network grow."""
        seed_all(self._seed, self.net.epoch + 1)
        if self.knob is not None:
            self._turn(self.knob)
        self.passes.begin()

    def close_epoch(self) -> None:
        """Removes what the method removes after an epoch."""
        self._trained = self.passes.end()

    def end_epoch(self, measured: Measures | None = None) -> Epoch | None:
        """Measures the epoch, keeps it and tells of it; None if the run diverged in it.

        Args:
            measured: what somebody else has measured of it already.
        """
        record = self._judged(*self._trained, measured)
        if record is not None:
            if self._folder is not None:
                self._keep(self._folder, self.stepper)
            if self._on_epoch is not None:
                self._on_epoch(record)
        return record

    def _resumed(self, folder: Path | None, make_stepper: Callable[[], Stepper]) -> Stepper:
        """The optimiser, with network and history brought to where the folder's state is."""
        run = self.so_far
        if folder is None or not (folder / STATE).exists():
            return make_stepper() if self._start is None else self._begun(self._start, make_stepper)
        kept = load_run(folder / STATE, self.net)
        run.history = [Epoch.from_dict(fields) for fields in kept.notes["history"]]
        run.status, run.reason = kept.notes["status"], kept.notes["reason"]
        if run.status == "complete":
            run.reason = self._impatient()
        self.passes.seconds = run.history[-1].seconds
        self.passes.training_flops = run.history[-1].training_flops
        for name, generator in self._generators().items():
            if name in kept.extra:
                generator.set_state(kept.extra[name])
        stepper = make_stepper()
        stepper.restore(kept.states, kept.extra)
        return stepper

    def _begun(self, start: Path, make_stepper: Callable[[], Stepper]) -> Stepper:
        """The optimiser, with network and optimiser as another run has left them; what was a ramp there is over."""
        kept = load_run(start, self.net)
        self.net.epoch, self.net.collapsed = 0, []
        stepper = make_stepper()
        stepper.restore(kept.states, {})
        return stepper

    def _judged(self, loss: float, accuracy: float, measured: Measures | None) -> Epoch | None:
        run, net = self.so_far, self.net
        if not math.isfinite(loss):
            run.status, run.reason = "diverged", f"the loss became {loss} in epoch {net.epoch}"
            return None
        if net.collapsed:
            run.status = "collapsed"
            run.reason = f"{', '.join(net.collapsed)} would have lost the last unit in epoch {net.epoch}"
        record = self._record(loss, accuracy, measured)
        for name, value in (("loss", record.val_loss), ("metric", record.val_accuracy)):
            if not math.isfinite(value):
                run.status, run.reason = "diverged", f"the validation {name} became {value}"
                return None
        run.history.append(record)
        self.stepper.end_epoch(record)
        if run.status == "complete":
            run.reason = self._impatient()
        return record

    def _inputs(self) -> Iterator[tuple[Tensor, ...]]:
        """The training part's inputs, for a method: the order of the epochs to come stays as it is.

        What is looked at counts as training, forward. (FLOPs are counted here, before the method hooks anything in.)
        """
        return self._looked_at(self.passes.flops()[0])

    def _looked_at(self, flops: int) -> Iterator[tuple[Tensor, ...]]:
        with self._undisturbed(self.train_part):
            for inputs in self.train_part.inputs():
                self.net.spent += flops * len(inputs[0])
                yield inputs

    def _examples(self) -> Iterator[Batch]:
        """The training part's inputs and targets, for a method: likewise."""
        with self._undisturbed(self.train_part):
            yield from self.train_part.examples()

    def _score(self) -> float:
        """The validation metric of the network as it stands, for a method; counts as training, as the inputs do."""
        part = self.parts["val"]
        assert part is not None
        training = [child for child in self.net.module.modules() if child.training]
        flops = self.passes.flops()[0]

        def counted() -> Iterator[Batch]:
            for inputs, targets in part:
                self.net.spent += flops * len(targets)
                yield inputs, targets

        with self._undisturbed(part):
            score = self.passes.measure(counted())[1]
        for child in training:
            child.training = True
        return score

    @contextmanager
    def _undisturbed(self, part: Part) -> Iterator[None]:
        """Leaves random states as they were, those of the user's own DataLoader, too."""
        before = [generator.get_state() for generator in part.generators]
        try:
            with random_states(self.passes.forward.device):
                yield
        finally:
            for generator, state in zip(part.generators, before, strict=True):
                generator.set_state(state)

    def _turn(self, knob: Callable[[int], float]) -> None:
        epoch, name = self.net.epoch + 1, getattr(self.net.method.knob, "name", "knob")
        value = knob(epoch)
        if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
            raise InputError(f"knob({epoch}) must give {name} as a positive number, got {value!r}")
        self.net.knob = value

    def _impatient(self) -> str:
        """Why training ends before its last epoch: its patience is at an end; empty if it is not."""
        history = self.so_far.history
        waited, last = epochs_since_better(history), history[-1].epoch
        if self.patience is None or waited < self.patience or last == self.net.epochs:
            return ""
        return (
            f"no better validation metric since epoch {last - waited}: ended in epoch {last} (patience {self.patience})"
        )

    def _record(self, loss: float, accuracy: float, measured: Measures | None) -> Epoch:
        found = measured or {name: self.passes.measure(self.parts[name]) for name in ("val", "test")}
        (val_loss, val_accuracy), (test_loss, test_accuracy) = found["val"], found["test"]
        before = max((epoch.peak_memory for epoch in self.so_far.history), default=0)
        return Epoch(
            epoch=self.net.epoch,
            train_loss=loss,
            train_accuracy=accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            widths=self.net.widths,
            parameters=cost.parameters(self.net.module),
            flops=self.passes.flops()[0],
            training_flops=self.passes.training_flops,
            seconds=self.passes.seconds,
            peak_memory=max(before, cost.peak_memory(self.passes.forward.device)),
        )

    def _keep(self, folder: Path, stepper: Stepper) -> None:
        """Weights of the run's choices, then its state: a run cut off between the two trains its epoch again."""
        run = self.so_far
        chosen = {weights_file(folder, epoch.epoch) for epoch in choices(run.history)}
        newest = weights_file(folder, self.net.epoch)
        if newest in chosen:
            save_tensors(newest, self.net.plain_state())
        notes = {
            "status": run.status,
            "reason": run.reason,
            "history": [epoch.to_dict() for epoch in run.history],
        }
        generators = {name: generator.get_state() for name, generator in self._generators().items()}
        save_run(folder / STATE, self.net, stepper.optimizer, notes, {**stepper.state(), **generators})
        for path in folder.glob("epoch-*.safetensors"):
            if path not in chosen:
                path.unlink()

    def _generators(self) -> dict[str, torch.Generator]:
        """The random generators of the user's own DataLoaders."""
        return {
            f"generator-{name}-{at}": generator
            for name, part in self.parts.items()
            if part is not None
            for at, generator in enumerate(part.generators)
        }


def weights_file(folder: Path, epoch: int) -> Path:
    """Where ``fit`` keeps the plain network's weights of an epoch."""
    return folder / f"epoch-{epoch}.safetensors"


def _nothing() -> None:
    pass


def seed_all(seed: int, epoch: int) -> None:
    """One stream of random numbers an epoch, so that a run that goes on draws what it would have drawn."""
    value = (seed * 1_000_003 + epoch) % 2**63
    torch.manual_seed(value)
    np.random.seed(value % 2**32)  # what Datasets and augmentations of others draw from
    random.seed(value)


@contextmanager
def random_states(device: torch.device) -> Iterator[None]:
    """Leaves the global random states as they were."""
    numpys, pythons = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)
