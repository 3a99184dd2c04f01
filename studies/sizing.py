"""A network of the size that one asks for: a plan for it, or a search in this process for a module of one's own."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from torch import nn

import sizer
from sizer import Epoch, methods
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.training import weights_file
from studies.arms import Range
from studies.plan import Plan
from studies.size_sampler import SizeSampler
from studies.target import Sized, Target, aims, check_start, size_of

TRIALS, STEPS = 8, 16
"""Trials of a search for budgets; steps of a path."""


def plan(data: str, network: str, limits: Mapping[str, float], *, method: str, **values: Any) -> Plan:
    """The evaluation that finds such a network: a search under a budget, without one a path through all sizes.

    Args:
        data, network: As a plan has them.
        limits: The budget: `params`, `flops` or `latency` as a target has them; one of them at most.
        method: One that sizes networks.
        values: Further fields of the plan; None is ignored.

    Raises:
        InputError: A value is wrong, or both budgets are given.
    """
    if len(limits) > 1:
        raise InputError(f"give one limit, not {len(limits)}: {' and '.join(limits)}")
    budget = {kind: [limit] for kind, limit in limits.items()}
    named = f"{Path(data).stem.replace(':', '-')}-{network.replace(':', '-')}"
    fields: dict[str, Any] = {"name": f"{'size' if budget else 'path'}-{named}", "arms": {method: {}}}
    fields |= {"trials": TRIALS, "target": budget} if limits else {"trials": STEPS, "schedule": "path"}
    given = {key: value for key, value in values.items() if value is not None}
    return Plan(data=data, network=network, **{**fields, **given})


@dataclass(frozen=True)
class Found:
    """What `size` found.

    Attributes:
        module: The network, plain, with the weights of its best epoch.
        epoch: That epoch, of the trial that it is from.
        knob: Of that trial.
        history: knob -> epochs, of each trial in the order in which they ran.
    """

    module: nn.Module
    epoch: Epoch
    knob: float
    history: dict[float, list[Epoch]]


def size(
    module: nn.Module,
    data: Data,
    *,
    max_params: int | None = None,
    max_flops: int | None = None,
    max_latency: float | None = None,
    method: str = "shrinknets",
    trials: int = TRIALS,
    epochs: int = 20,
    seed: int = 0,
    low: float | None = None,
    high: float | None = None,
    settings: dict[str, Any] | None = None,
    on_trial: Callable[[float, list[Epoch]], None] | None = None,
    **options: Any,
) -> Found:
    """Sizes copies of a module until one is just under a budget, and gives the best one that is under it.

    Each trial is `sizer.fit` of a copy with another knob, which a `SizeSampler` asks for. Validation accuracy chooses
    among all epochs that fit the budget. The module itself is left as it is.

    Args:
        module: The network, as large as its layers may be.
        data: What it is trained on.
        max_params, max_flops, max_latency: The budget, one of them: parameters, FLOPs of a sample's forward pass, or
            milliseconds of that pass, timed on the device that trains.
        method: One that sizes networks, with `settings`.
        trials: At most so many.
        epochs: Of each trial.
        seed: Of the search, and of the training of every trial.
        low, high: The range of the knob; the method's own unless given.
        on_trial: Told of each trial: its knob and its epochs.
        options: Further arguments of `sizer.fit`.

    Raises:
        InputError: No budget is given or several are, it is no less than the module has, the method has no knob, or no
            epoch of any trial fits it: the line says what came nearest.
    """
    given = {"params": max_params, "flops": max_flops, "latency": max_latency}
    limits: dict[str, Any] = {kind: [limit] for kind, limit in given.items() if limit is not None}
    if len(limits) != 1:
        raise InputError(f"give one limit, max_params, max_flops or max_latency, not {len(limits)}")
    wanted = Target(**limits)
    knob = methods.method_class(method).knob
    if knob is None or not methods.method_class(method).sizes:
        raise InputError(f"{method} sizes nothing: take one that does, such as shrinknets")
    bounds = Range(low=low or knob.low, high=high or knob.high)
    if not wanted.latency:
        check_start(wanted, size_of(module, data, wanted), f"max_{wanted.kind}")
    sampler = SizeSampler(wanted.budgets, size=wanted.attribute, within=wanted.within, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    history: dict[float, list[Epoch]] = {}
    sized: list[Sized] = []
    with tempfile.TemporaryDirectory(prefix="sizer-size-") as place:
        for number in range(trials):
            trial = study.ask()
            value = trial.suggest_float(knob.name, bounds.low, bounds.high, log=True)
            run = sizer.fit(
                copy.deepcopy(module), data, methods.create(method, value, **(settings or {})), epochs=epochs,
                seed=seed, folder=Path(place, str(value)), **options,
            )  # fmt: skip
            history[value] = run.history
            if on_trial is not None:
                on_trial(value, run.history)
            if not run.history:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            last = size_of(run.net.finish(), data, wanted)
            sized.append(Sized(number, value, last))
            trial.set_user_attr(wanted.attribute, last)
            study.tell(trial, max(epoch.val_accuracy for epoch in run.history))
            if all(aim.settled for aim in aims(wanted, knob.name, bounds, sized)):
                break
        value, best = _chosen(wanted, knob.name, bounds, history, sized)
        weights = load_tensors(weights_file(Path(place, str(value)), best.epoch))[0]
    return Found(_rebuilt(module, data, best.widths, weights), best, value, history)


def _chosen(
    wanted: Target, knob: str, bounds: Range, history: Mapping[float, Sequence[Epoch]], sized: Sequence[Sized]
) -> tuple[float, Epoch]:
    """The knob and the epoch of the best network under the budget."""
    (budget,) = wanted.budgets
    last = {each.knob: each for each in sized}

    def fits(value: float, epoch: Epoch) -> bool:
        if not wanted.latency:
            return bool(getattr(epoch, wanted.cost) <= budget)
        return last[value].size <= budget and epoch.parameters <= history[value][-1].parameters

    every = [(value, epoch) for value in last for epoch in history[value] if math.isfinite(epoch.val_accuracy)]
    fitting = [pair for pair in every if fits(*pair)]
    if not fitting:
        (aim,) = aims(wanted, knob, bounds, sized)
        near = f"; the nearest has {wanted.told(aim.nearest.size)}" if aim.nearest else ""
        raise InputError(
            f"no network of {len(history)} trials is within max_{wanted.kind}={wanted.told(budget)}: {aim.why}{near}"
        )
    return min(fitting, key=lambda pair: (-pair[1].val_accuracy, pair[1].parameters, pair[1].epoch))


def _rebuilt(module: nn.Module, data: Data, widths: dict[str, int], weights: dict[str, Any]) -> nn.Module:
    """A copy of the module with these widths and weights."""
    net = sizer.attach(copy.deepcopy(module), data.x_train[:2], methods.create("fixed"))
    net.resize_to(widths, blank=True)
    plain = net.finish()
    plain.load_state_dict(weights)
    return plain
