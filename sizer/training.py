"""The one training loop: fit()."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer

from sizer import cost
from sizer.checkpoint import load_run, restore_optimizer, save_run, save_tensors
from sizer.datasets import Data
from sizer.errors import InputError, unknown
from sizer.history import Epoch, best_epoch, front
from sizer.methods.method import Method
from sizer.net import Net, attach

STATE = "state.safetensors"
EVALUATION_BATCH = 1024


@dataclass
class Run:
    """What came of a training run.

    Attributes:
        net: the network as it stands after the last epoch; ``net.finish()`` makes it plain.
        history: its epochs.
        status: ``complete``; ``collapsed``: a layer would have lost its last unit, and training ended as a valid
            result; ``diverged``: the loss was no longer finite.
        reason: why it ended early; empty when complete.
    """

    net: Net
    history: list[Epoch] = field(default_factory=list)
    status: str = "complete"
    reason: str = ""

    @property
    def best(self) -> Epoch | None:
        """The best validation epoch; None if there is no epoch."""
        return best_epoch(self.history) if self.history else None


def optimizer_of(name: str, groups: list[dict[str, Any]]) -> Optimizer:
    """``adam``, ``adamw`` (both fused) or ``sgd`` (momentum 0.9)."""
    if name == "adam":
        return Adam(groups, fused=True)
    if name == "adamw":
        return AdamW(groups, fused=True)
    if name == "sgd":
        return SGD(groups, momentum=0.9)
    raise unknown("optimizer", name, OPTIMIZERS)


OPTIMIZERS = ("adam", "adamw", "sgd")


def fit(
    module: nn.Module,
    data: Data,
    method: Method,
    *,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    optimizer: str = "adam",
    seed: int = 0,
    device: str | torch.device = "cpu",
    ignore: Sequence[str] = (),
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """Trains ``module`` on ``data`` while ``method`` sizes it.

    The same arguments and seed give the same run to the bit on a CPU, interrupted or not; the global random state is
    left as it was.

    Args:
        module: the network, freshly built; it becomes the trained one.
        data: all of it is kept on the device.
        method: from ``sizer.methods.create``; its ``weight_decay`` goes to the optimiser.
        epochs: at least 1.
        batch_size: at least 1; a last batch of a single sample is left out.
        learning_rate: of the weights; gates have the method's multiple of it.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        seed: of gates, order of samples, dropout and grown weights.
        device: where to train.
        ignore: paths of submodules that keep their width.
        folder: where the run keeps its state after each epoch (``state.safetensors``), and as ``epoch-N.safetensors``
            the plain network's weights of the epochs that nothing of this run beats in both accuracy and size. A run
            whose state is there already goes on from it.
        on_epoch: called after each epoch, when its state is kept; in a run that goes on, first for those already done.

    Raises:
        InputError: an argument is out of range, or the data has another shape than the network takes.
        UnsupportedNetworkError: the network's widths cannot be followed.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"learning_rate must be a positive number, got {learning_rate}")
    device = torch.device(device)
    module.to(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        _seed(seed, 0)
        training = _Training(module, data, method, batch_size, device, ignore, epochs)
        return training.run(optimizer, learning_rate, seed, folder, on_epoch)


class _Training:
    def __init__(
        self,
        module: nn.Module,
        data: Data,
        method: Method,
        batch_size: int,
        device: torch.device,
        ignore: Sequence[str],
        epochs: int,
    ) -> None:
        self.device = device
        self.batch_size = batch_size
        self.parts = {
            part: (getattr(data, f"x_{part}").to(device), getattr(data, f"y_{part}").to(device))
            for part in ("train", "val", "test")
        }
        self.classification = data.task == "classification"
        samples = len(data.x_train)
        self.starts = range(0, samples - (samples % batch_size == 1 and samples > 1), batch_size)
        cost.reset_peak_memory(device)
        self.net = attach(module, self.parts["train"][0][:2], method, ignore=ignore)
        self.net.epochs = epochs
        self.net.steps_per_epoch = len(self.starts)
        self.run_so_far = Run(self.net)
        self._counted = (-1, (0, 0))
        self.seconds = 0.0
        self.training_flops = 0

    def run(
        self,
        optimizer: str,
        learning_rate: float,
        seed: int,
        folder: Path | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> Run:
        run, net = self.run_so_far, self.net
        states: dict[str, dict[str, Tensor]] = {}
        if folder is not None and (folder / STATE).exists():
            states, notes = load_run(folder / STATE, net)
            run.history = [Epoch.from_dict(fields) for fields in notes["history"]]
            run.status, run.reason = notes["status"], notes["reason"]
            self.seconds, self.training_flops = run.history[-1].seconds, run.history[-1].training_flops
        stepper = net.track(optimizer_of(optimizer, net.param_groups(learning_rate, net.method.weight_decay)))
        restore_optimizer(stepper, net.module, states)
        if on_epoch is not None:
            for epoch in run.history:
                on_epoch(epoch)
        assert net.epochs is not None
        while run.status == "complete" and net.epoch < net.epochs:
            _seed(seed, net.epoch + 1)
            loss, accuracy = self._train_epoch(stepper)
            if not math.isfinite(loss):
                run.status, run.reason = "diverged", f"the loss became {loss} in epoch {net.epoch}"
                break
            if net.collapsed:
                run.status = "collapsed"
                run.reason = f"{', '.join(net.collapsed)} would have lost the last unit in epoch {net.epoch}"
            record = self._record(loss, accuracy)
            if not math.isfinite(record.val_loss):
                run.status, run.reason = "diverged", f"the validation loss became {record.val_loss}"
                break
            run.history.append(record)
            if folder is not None:
                self._keep(folder, stepper)
            if on_epoch is not None:
                on_epoch(record)
        return run

    def _train_epoch(self, optimizer: Optimizer) -> tuple[float, float]:
        """Mean loss and accuracy over the epoch's batches, without the penalty."""
        net = self.net
        x, y = self.parts["train"]
        began = time.perf_counter()
        net.module.train()
        net.before_epoch()
        order = torch.randperm(len(x), device=self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        score = torch.zeros((), dtype=torch.float64, device=self.device)
        for start in self.starts:
            rows = order[start : start + self.batch_size]
            inputs, targets = x.index_select(0, rows), y.index_select(0, rows)
            optimizer.zero_grad()
            outputs = net.module(inputs)
            loss = self._loss(outputs, targets)
            objective = loss + net.penalty() if net.method.sizes else loss
            objective.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            optimizer.step()
            total += loss.detach() * len(rows)
            score += self._score(outputs.detach(), targets)
            self.training_flops += self._flops()[1] * len(rows)
            net.after_step()
        mean = float(total) / len(x)
        if math.isfinite(mean):
            net.after_epoch()
        self.seconds += time.perf_counter() - began
        return mean, self._accuracy(float(score), y)

    def _flops(self) -> tuple[int, int]:
        """FLOPs of one sample at the present widths: forward, and forward with backward."""
        if self._counted[0] != self.net.resizes:
            self._counted = (self.net.resizes, cost.flops(self.net.module, self.net.inputs))
        return self._counted[1]

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) if self.classification else F.mse_loss(outputs, targets)

    def _score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What accuracy is made of: hits, or squared errors."""
        if self.classification:
            return (outputs.argmax(1) == targets).sum()
        return (outputs - targets).square().sum()

    def _accuracy(self, score: float, targets: Tensor) -> float:
        """The share of hits, or R^2."""
        if self.classification:
            return score / len(targets)
        spread = float((targets - targets.mean(0)).square().sum())
        return 1.0 - score / spread if spread else 0.0

    @torch.no_grad()
    def _evaluate(self, part: str) -> tuple[float, float]:
        x, y = self.parts[part]
        self.net.module.eval()
        total = score = 0.0
        for inputs, targets in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH), strict=True):
            outputs = self.net.module(inputs)
            total += float(self._loss(outputs, targets)) * len(inputs)
            score += float(self._score(outputs, targets))
        return total / len(x), self._accuracy(score, y)

    def _record(self, loss: float, accuracy: float) -> Epoch:
        val_loss, val_accuracy = self._evaluate("val")
        test_loss, test_accuracy = self._evaluate("test")
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
            flops=self._flops()[0],
            training_flops=self.training_flops,
            seconds=self.seconds,
            peak_memory=cost.peak_memory(self.device),
        )

    def _keep(self, folder: Path, optimizer: Optimizer) -> None:
        """Weights of the run's front, then its state: a run cut off between the two trains its epoch again."""
        run = self.run_so_far
        chosen = {weights_file(folder, epoch.epoch) for epoch in front(run.history)}
        newest = weights_file(folder, self.net.epoch)
        if newest in chosen:
            save_tensors(newest, self.net.plain_state())
        notes = {
            "status": run.status,
            "reason": run.reason,
            "history": [epoch.to_dict() for epoch in run.history],
        }
        save_run(folder / STATE, self.net, optimizer, notes)
        for path in folder.glob("epoch-*.safetensors"):
            if path not in chosen:
                path.unlink()


def weights_file(folder: Path, epoch: int) -> Path:
    """Where ``fit`` keeps the plain network's weights of an epoch."""
    return folder / f"epoch-{epoch}.safetensors"


def _seed(seed: int, epoch: int) -> None:
    """One stream of random numbers an epoch, so that a run that goes on draws what it would have drawn."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
