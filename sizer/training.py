"""The one training loop: fit()."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from sizer import cost, layout
from sizer.attaching import attach
from sizer.batches import Loaders, Part, parts_of
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.history import Epoch
from sizer.methods.method import Method
from sizer.objectives import Loss, Metric, Objective
from sizer.passes import Augment, Forward, Passes
from sizer.run import STATE, Run, Training, random_states, seed_all, weights_file
from sizer.stepper import OPTIMIZERS, OptimizerMaker, ScheduleMaker, Stepper

__all__ = ["OPTIMIZERS", "STATE", "Run", "fit", "weights_file"]


def fit(
    module: nn.Module,
    data: Data | Loaders,
    method: Method,
    *,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    optimizer: str | OptimizerMaker = "adam",
    seed: int = 0,
    device: str | torch.device = "cpu",
    ignore: Sequence[str] = (),
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    loss: Loss | None = None,
    metric: str | Metric | None = None,
    weight_decay: float = 0.0,
    schedule: str | ScheduleMaker | None = None,
    knob: Callable[[int], float] | None = None,
    augment: Augment | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    patience: int | None = None,
    round_to: int = 1,
    start: Path | None = None,
    settle: int = 0,
    max_params: int | None = None,
    max_flops: int | None = None,
    progress: bool = False,
) -> Run:
    """Trains ``module`` on ``data`` while ``method`` sizes it.

    The same arguments and seed give the same run to the bit on a CPU, interrupted or not; the global random states of
    torch, numpy and ``random`` are left as they were. (A DataLoader with ``persistent_workers`` keeps random states
    that nobody can restore.)

    Targets say what the task is: integers (N,) are classes of samples, integers (N, H, W, ...) classes of positions
    (segmentation), floats are regressed. A network that gives maps (N, classes, H, W) on labels (N,) is trained on each
    label for all positions of its sample; a ``loss`` or ``metric`` of one's own gets the labels as they are.

    Args:
        module: the network, freshly built or trained; it becomes the trained one.
        data: ``Data``, all of it kept on the device, or ``Loaders``, moved there batch by batch.
        method: from ``sizer.methods.create``; its ``weight_decay`` goes to the optimiser.
        epochs: at least 1.
        batch_size: at least 1; a last training batch of a single sample is left out. DataLoaders have their own.
        learning_rate: of the weights; gates have the method's multiple of it.
        optimizer: ``adam``, ``adamw``, ``rmsprop``, ``sgd``, or a callable from parameter groups to an optimiser, such
            as ``lambda groups: torch.optim.NAdam(groups)``.
        seed: of gates, order of samples, augmentation, dropout and grown weights.
        device: where to train.
        ignore: paths of submodules that keep their width.
        folder: where the run keeps its state after each epoch (``state.safetensors``), and as ``epoch-N.safetensors``
            the plain network's weights of the epochs that nothing of this run beats in both accuracy and size. A run
            whose state is there already goes on from it. It is made where the folder above it is there.
        on_epoch: called after each epoch, when its state is kept; in a run that goes on, first for those already done.
        loss: (outputs, targets) -> the mean over the batch, of shape (); by default cross entropy of integers, mean
            squared error of floats.
        metric: what the epochs' accuracies are, larger being better: ``accuracy`` (the default for integers, over
            positions where there are some), ``miou`` (mean intersection over union of the whole part), ``r2`` (the
            default for floats), or (outputs, targets) -> a number or (N,), averaged over samples.
        weight_decay: added to the method's own; never on gates.
        schedule: of the learning rates, gates' too, stepped once an epoch: ``cosine`` (to 0 over the epochs) or a
            callable from the optimiser to an LRScheduler. Its state is kept in ``folder``.
        knob: epoch, from 1 -> the method's knob in that epoch.
        augment: on the device, a training batch's x -> x (a tuple of them where the network takes several).
        clip: the largest norm of all gradients together.
        accumulate: batches per optimiser step, weighted by their samples, as one larger batch; the last step of an
            epoch may have fewer.
        precision: ``float32``, or ``bfloat16``: outputs and loss under autocast, parameters stay as they are (slower on
            processors that lack its arithmetic).
        patience: training ends as complete after so many epochs without a better validation metric.
        round_to: removal leaves multiples of so many units.
        start: another run's ``state.safetensors``, of such a network under this method: its weights, widths and
            optimiser state are what this run begins with. Epochs are counted anew.
        settle: in the last so many of the epochs the method does nothing: widths stay, and no penalty acts.
        max_params, max_flops: once the network has no more parameters, or FLOPs of a sample's forward pass, the method
            does nothing any more; of methods that remove units alone.
        progress: shows a bar on stderr.

    Raises:
        InputError: an argument is out of range, or the data has another shape than the network takes.
        UnsupportedNetworkError: the network's widths cannot be followed.
    """
    for name, value, least in (
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("accumulate", accumulate, 1),
        ("patience", patience, 1),
        ("max_params", max_params, 1),
        ("max_flops", max_flops, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    for name, number in (("learning_rate", learning_rate), ("clip", clip)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} must be a positive number, got {number}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise InputError(f"weight_decay must be a number of at least 0, got {weight_decay}")
    for name, given in (("loss", loss), ("knob", knob), ("augment", augment)):
        if given is not None and not callable(given):
            raise InputError(f"{name} must be a callable, got {given!r}")
    if knob is not None and method.knob is None:
        raise InputError(f"{method.name} has no knob to change while training; leave knob out")
    if not 0 <= settle <= epochs:
        raise InputError(f"settle must be from 0 to {epochs}, the epochs, got {settle}")
    if (max_params or max_flops) and (method.grows or not method.sizes):
        what = "grows" if method.grows else "removes nothing"
        raise InputError(f"max_params and max_flops end removal, but {method.name} {what}: leave them out")
    device = torch.device(device)
    with random_states(device):
        seed_all(seed, 0)
        parts = parts_of(data, device, dtype_of(module), batch_size)
        training = made(
            module, parts, method, epochs=epochs, learning_rate=learning_rate, optimizer=optimizer, seed=seed,
            device=device, ignore=ignore, folder=folder, on_epoch=on_epoch, loss=loss, metric=metric,
            weight_decay=weight_decay, schedule=schedule, knob=knob, augment=augment, clip=clip, accumulate=accumulate,
            precision=precision, patience=patience, round_to=round_to, start=start, settle=settle,
            max_params=max_params, max_flops=max_flops,
        )  # fmt: skip
        return training.run(progress)


def dtype_of(module: nn.Module) -> torch.dtype:
    """What the network's numbers are."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def made(
    module: nn.Module,
    parts: dict[str, Part | None],
    method: Method,
    *,
    epochs: int,
    learning_rate: float,
    optimizer: str | OptimizerMaker,
    seed: int,
    device: torch.device,
    ignore: Sequence[str] = (),
    folder: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    loss: Loss | None = None,
    metric: str | Metric | None = None,
    weight_decay: float = 0.0,
    schedule: str | ScheduleMaker | None = None,
    knob: Callable[[int], float] | None = None,
    augment: Augment | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    patience: int | None = None,
    round_to: int = 1,
    start: Path | None = None,
    settle: int = 0,
    max_params: int | None = None,
    max_flops: int | None = None,
) -> Training:
    """A training as ``fit`` makes it, of arguments that are in range; it draws from the global random states.

    Args:
        parts: of the data, as ``parts_of`` gives them; several trainings may share them.
    """
    method.check_epochs(epochs)
    module.to(device)
    if device.type == "cpu" or precision == "bfloat16":
        layout.channels_last(module)
    assert parts["train"] is not None
    inputs, targets = parts["train"].example()
    forward = Forward(module, device, precision, inputs)
    objective = Objective(targets, loss, metric)
    outputs = forward.check(inputs)
    with torch.no_grad(), forward.precision():
        objective.loss(outputs, targets)
        objective.score().add(outputs, targets)
    seed_all(seed, 0)
    cost.reset_peak_memory(device)
    net = attach(module, inputs, method, ignore=ignore, round_to=round_to)
    net.epochs, net.settle = epochs, settle
    batches = parts["train"].batches
    net.steps_per_epoch = None if batches is None else math.ceil(batches / accumulate)
    decay = method.weight_decay + weight_decay
    passes = Passes(net, forward, objective, augment, accumulate)
    if max_params or max_flops:
        net.enough = lambda: (
            cost.parameters(module) <= (max_params or math.inf) and passes.flops()[0] <= (max_flops or math.inf)
        )
    return Training(
        net, parts, passes,
        lambda: Stepper(net, optimizer, learning_rate, decay, schedule, clip, epochs),
        seed=seed, folder=folder, on_epoch=on_epoch, knob=knob, patience=patience, start=start,
    )  # fmt: skip
