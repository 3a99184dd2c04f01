"""A network of the size that one asks for: a plan for it, or a search in this process for a module of one's own."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from torch import nn

import sizer
from sizer import Epoch, cost, methods
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.training import weights_file
from studies.plan import Plan
from studies.size_sampler import SizeSampler
from studies.target import Target

TRIALS, STEPS = 8, 16
"""Trials of a search for budgets; steps of a path."""


def plan(
    data: str, network: str, *, max_params: int | None = None, max_flops: int | None = None, method: str, **values: Any
) -> Plan:
    """The evaluation that finds such a network: a search under a budget, without one a path through all sizes.

    Args:
        data, network: As a plan has them.
        max_params, max_flops: The budget; one of them at most.
        method: One that sizes networks.
        values: Further fields of the plan; None is ignored.

    Raises:
        InputError: A value is wrong, or both budgets are given.
    """
    if max_params is not None and max_flops is not None:
        raise InputError(f"give a number of parameters or of FLOPs, not both: {max_params:,} and {max_flops:,}")
    budget = {"params": [max_params]} if max_params else {"flops": [max_flops]} if max_flops else None
    named = f"{Path(data).stem.replace(':', '-')}-{network.replace(':', '-')}"
    fields: dict[str, Any] = {"name": f"{'size' if budget else 'path'}-{named}", "arms": {method: {}}}
    fields |= {"trials": TRIALS, "target": budget} if budget else {"trials": STEPS, "schedule": "path"}
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
        max_params, max_flops: The budget: one of them.
        method: One that sizes networks, with `settings`.
        trials: At most so many.
        epochs: Of each trial.
        seed: Of the search, and of the training of every trial.
        low, high: The range of the knob; the method's own unless given.
        on_trial: Told of each trial: its knob and its epochs.
        options: Further arguments of `sizer.fit`.

    Raises:
        InputError: No budget is given or both are, it is no less than the module has, the method has no knob, or no
            epoch of any trial fits it: the line says what came nearest.
    """
    if (max_params is None) == (max_flops is None):
        raise InputError("give max_params or max_flops, one of them")
    wanted = Target(params=[max_params]) if max_params is not None else Target(flops=[int(max_flops or 0)])
    (budget,) = wanted.budgets
    knob = methods.method_class(method).knob
    if knob is None or not methods.method_class(method).sizes:
        raise InputError(f"{method} sizes nothing: take one that does, such as shrinknets")
    parameters, flops = cost.parameters(module), int(cost.flops(module, (data.x_train[:1],))[0])
    start = parameters if wanted.cost == "parameters" else flops
    if budget >= start:
        raise InputError(f"{budget:,} {wanted.cost} are no less than the module has before it is sized, {start:,}")
    study = optuna.create_study(
        direction="maximize", sampler=SizeSampler([budget], size=wanted.attribute, within=wanted.within, seed=seed)
    )
    history: dict[float, list[Epoch]] = {}
    with tempfile.TemporaryDirectory(prefix="sizer-size-") as place:
        folders: dict[float, Path] = {}
        for number in range(trials):
            trial = study.ask()
            value = trial.suggest_float(knob.name, low or knob.low, high or knob.high, log=True)
            folders[value] = Path(place, str(number))
            run = sizer.fit(
                copy.deepcopy(module), data, methods.create(method, value, **(settings or {})), epochs=epochs,
                seed=seed, folder=folders[value], **options,
            )  # fmt: skip
            history[value] = run.history
            if on_trial is not None:
                on_trial(value, run.history)
            if not run.history:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            last = int(getattr(run.history[-1], wanted.cost))
            trial.set_user_attr(wanted.attribute, last)
            study.tell(trial, max(epoch.val_accuracy for epoch in run.history))
            if (1 - wanted.within) * budget <= last <= budget:
                break
        every = [(value, epoch) for value, epochs_of in history.items() for epoch in epochs_of]
        every = [pair for pair in every if math.isfinite(pair[1].val_accuracy)]
        fits = [pair for pair in every if getattr(pair[1], wanted.cost) <= budget]
        if not fits:
            sizes = [int(getattr(epoch, wanted.cost)) for _, epoch in every]
            near = f"the smallest had {min(sizes):,}" if sizes else "no trial gave a network"
            raise InputError(f"no network of {len(history)} trials has at most {budget:,} {wanted.cost}: {near}")
        value, best = min(fits, key=lambda pair: (-pair[1].val_accuracy, pair[1].parameters, pair[1].epoch))
        weights = load_tensors(weights_file(folders[value], best.epoch))[0]
    return Found(_rebuilt(module, data, best.widths, weights), best, value, history)


def _rebuilt(module: nn.Module, data: Data, widths: dict[str, int], weights: dict[str, Any]) -> nn.Module:
    """A copy of the module with these widths and weights."""
    net = sizer.attach(copy.deepcopy(module), data.x_train[:2], methods.create("fixed"))
    net.resize_to(widths, blank=True)
    plain = net.finish()
    plain.load_state_dict(weights)
    return plain
