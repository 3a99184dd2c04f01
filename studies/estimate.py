"""What a sweep would cost, before it is begun: networks of both ends of every arm, a few real steps of each timed."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

import torch

from sizer import Epoch, cost, methods
from sizer import fit as sizer_fit
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.methods import Method
from studies import target
from studies.arms import Arm, Range, Taken
from studies.plan import Plan

_STEPS = 4
# What a sizing arm may shrink to is not known beforehand; its small end is a tenth of the widths it starts from.
_SHRUNK = 10


@dataclass(frozen=True)
class Size:
    """One network of an arm.

    Attributes:
        widths: Layer -> width, in the order the layers run.
        parameters: Its weights and biases.
        flops: Of one sample's forward pass.
        memory: Bytes that training it took at its peak, the process and the data included.
        seconds: What one trial of this size would take on one of this machine's CPUs.
        training_flops: What it would cost.
    """

    widths: dict[str, int]
    parameters: int
    flops: int
    memory: int
    seconds: float
    training_flops: float


@dataclass(frozen=True)
class ArmEstimate:
    """What one arm would cost.

    Attributes:
        arm: Its name.
        method: Its method.
        draws: What its study draws, in words, and by which sampler.
        differs: Where it differs from the plan, `field: value`.
        trials: How many.
        epochs: Of each.
        smallest: A network of its smallest widths; of a sizing arm a tenth of those it starts from.
        largest: A network of its largest widths; of a sizing arm those it starts from.
        most: FLOPs of training that it may spend; None where its trials alone end it.
    """

    arm: str
    method: str
    draws: str
    differs: list[str]
    trials: int
    epochs: int
    smallest: Size
    largest: Size
    most: float | None

    @property
    def seconds(self) -> tuple[float, float]:
        """CPU seconds of the arm, if all its trials were of the smallest, or of the largest size.

        On a budget of FLOPs, where many small ones may take longer than few large ones: the least and the most.
        """
        small, large = (each.seconds * self._trials(each) for each in (self.smallest, self.largest))
        return (small, large) if self.most is None else (min(small, large), max(small, large))

    def _trials(self, size: Size) -> int:
        """How many trials it has if all are of this size."""
        return self.trials if self.most is None else min(self.trials, math.ceil(self.most / size.training_flops))


def dry_run(plan: Plan, cpus: int = 1) -> list[ArmEstimate]:
    """Estimates every arm of a plan by training some steps of its smallest and largest network, here.

    Args:
        plan: The evaluation.
        cpus: Threads of one trial.

    Raises:
        InputError: The data cannot be had, no network can be built for it, or a target lies outside of its sizes.
    """
    data = plan.read_data()
    target.check(plan, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(cpus)
    try:
        return [_estimate(plan, name, arm, data) for name, arm in plan.every.items() if plan.planned(name)]
    finally:
        torch.set_num_threads(threads)


def _estimate(plan: Plan, name: str, arm: Arm, data: Data) -> ArmEstimate:
    small, large = ends(plan, arm)
    overridden = [
        f"{field}: {value}"
        for field in ("epochs", "batch_size", "learning_rate", "optimizer", "precision", "sampler")
        if (value := getattr(arm, field)) is not None
        and value != getattr(plan, field)
        and not isinstance(value, list | Range)
    ]
    smallest = _size(plan, name, arm, data, small)
    largest = smallest if small == large else _size(plan, name, arm, data, large)
    return ArmEstimate(
        name, arm.method, _draws(plan, name, arm), overridden, plan.planned(name), round(_epochs(plan, name)),
        smallest, largest, None if arm.stage else plan.max_training_flops,
    )  # fmt: skip


def ends(plan: Plan, arm: Arm) -> tuple[list[int], list[int]]:
    """The widths of the smallest and the largest network of an arm, as far as they are known before it is run."""
    # Those that other arms are to give are not; those of the plan stand for them.
    start = list(plan.start_widths().values())
    if arm.taken is not None and not arm.sizes:
        cut = [max(1, round(width * (1 - arm.taken.cut))) for width in start]
        return cut, cut
    if arm.sizes:
        start = arm.start if isinstance(arm.start, list) else start
        # A width of 1 cannot be told from a dimension that is broadcast, in a network that has to be traced.
        return [min(width, max(2, width // _SHRUNK)) for width in start], start
    ends = []
    for end in ("low", "high"):
        depth = int(getattr(arm.depth, end)) if arm.depth else None
        ranges = [arm.widths[layer] if isinstance(arm.widths, dict) else arm.widths for layer in plan.layers(depth)]
        ends.append([int(getattr(bounds, end)) for bounds in ranges if bounds])
    return ends[0], ends[1]


def _size(plan: Plan, name: str, arm: Arm, data: Data, widths: list[int]) -> Size:
    epochs, batch = _epochs(plan, name), plan.setting(name, "batch_size")
    rows = min(_STEPS * batch, len(data.x_train))
    part = replace(
        data, x_train=data.x_train[:rows], y_train=data.y_train[:rows],
        x_val=data.x_val[:batch], y_val=data.y_val[:batch], x_test=data.x_test[:batch], y_test=data.y_test[:batch],
    )  # fmt: skip
    # At the start of its range a knob moves little, so that the network keeps about this size for these epochs.
    method = methods.create(arm.method, arm.knob.low if arm.knob else None, **arm.settings)
    seen: list[Epoch] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        module = plan.build(data.input_shape, data.outputs, widths)
    parameters, flops = cost.parameters(module), cost.flops(module, (data.x_train[:1],))[0]
    sizer_fit(
        module, part, method, epochs=_enough(method, plan.setting(name, "epochs")), batch_size=batch,
        learning_rate=plan.setting(name, "learning_rate"), optimizer=plan.setting(name, "optimizer"),
        precision=plan.setting(name, "precision") or "float32", seed=plan.seed, on_epoch=seen.append,
    )  # fmt: skip
    # The last epoch: the first also pays for what is made once.
    before = seen[-2] if len(seen) > 1 else None
    seconds = seen[-1].seconds - (before.seconds if before else 0.0)
    spent = seen[-1].training_flops - (before.training_flops if before else 0)
    times = len(data.x_train) / rows * epochs
    return Size(
        dict(zip(plan.layers(len(widths)), widths, strict=True)), parameters, flops, seen[-1].peak_memory,
        seconds * times, spent * times,
    )  # fmt: skip


def _enough(method: Method, most: int) -> int:
    """The fewest epochs, 2 or more, in which a method sizes anything."""
    for epochs in range(2, most):
        with contextlib.suppress(InputError):
            method.check_epochs(epochs)
            return epochs
    return most


def _epochs(plan: Plan, name: str) -> float:
    """Of a trial, on average: the steps of a path have fewer than its first."""
    planned = plan.planned(name)
    return sum(plan.epochs_of(name, number)[0] for number in range(planned)) / planned


def _draws(plan: Plan, name: str, arm: Arm) -> str:
    def shown(bounds: Range) -> str:
        return f"{bounds.low:g}..{bounds.high:g}" + ("" if bounds.log else " uniformly")

    if arm.stage == "learning_rate" and isinstance(arm.learning_rate, list):
        return f"learning rates {', '.join(f'{rate:g}' for rate in arm.learning_rate)} (grid)"
    if arm.match is not None and arm.stage is None:
        return f"{arm.knob_name} as its stage finds it"
    if arm.stage == "knob":
        return f"{arm.knob_name} for as many parameters as {arm.match}"
    parts = [f"{arm.knob_name} {shown(arm.knob)}"] if arm.knob else []
    if isinstance(arm.widths, Taken):
        return "nothing: its widths are taken"
    if isinstance(arm.widths, dict):
        parts += [f"{layer} {shown(bounds)}" for layer, bounds in arm.widths.items()]
    elif arm.widths:
        parts.append(f"widths {shown(arm.widths)}")
    parts += [f"depth {shown(arm.depth)}"] if arm.depth else []
    parts += [f"weight decay {shown(arm.weight_decay)}"] if arm.weight_decay else []
    parts += [f"learning rate {shown(arm.learning_rate)}"] if isinstance(arm.learning_rate, Range) else []
    return f"{', '.join(parts)} ({plan.draws_by(name)})"
