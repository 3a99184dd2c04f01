"""A network of the size that one asks for: a plan for it, or a search in this process for a module of one's own."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from torch import nn

import sizer
from sizer import Epoch, methods, networks
from sizer.checkpoint import load_tensors
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.graph import Graph
from sizer.training import STATE, weights_file
from studies.arms import Range
from studies.path import Schedule, Sized, held, is_over, towards
from studies.plan import Plan
from studies.size_sampler import SizeSampler
from studies.target import COLLAPSED, Target, aims, check_start, size_of

TRIALS, STEPS, MOST_STEPS = 8, 16, 40
"""Trials of a search for a budget; steps of a path through the knob's range; those of one to a budget, at most."""
EXTEND = 100.0
"""How far a path to a budget may leave the knob's range."""


def plan(data: str, network: str, limits: Mapping[str, float], *, method: str, epochs: int, **values: Any) -> Plan:
    """The evaluation that finds such a network.

    Under a budget of parameters or FLOPs that is a path down to it, where the method removes units; else a search for
    the knob. Without a budget it is a path through all sizes.

    Args:
        data, network: As a plan has them.
        limits: The budget: `params`, `flops` or `latency` as a target has them; one of them at most.
        method: One that sizes networks.
        epochs: Of a trial of a search, of the tuning at the end of a path to a budget, or of a path's first step.
        values: Further fields of the plan; None is ignored.

    Raises:
        InputError: A value is wrong, or both budgets are given.
    """
    if len(limits) > 1:
        raise InputError(f"give one limit, not {len(limits)}: {' and '.join(limits)}")
    budget: dict[str, Any] = {kind: [limit] for kind, limit in limits.items()}
    named = f"{Path(data).stem.replace(':', '-')}-{network.replace(':', '-')}"
    fields: dict[str, Any] = {"name": f"{'size' if budget else 'path'}-{named}", "arms": {method: {}}, "epochs": epochs}
    if not limits:
        fields |= {"trials": STEPS, "schedule": "path"}
    elif (schedule := path_to(method, limits, epochs)) is not None:
        first, walk = schedule
        (limit,) = limits.values()
        # It goes by its budget, so that another is another path.
        fields |= {"name": f"{fields['name']}-{limit:.0f}", "epochs": first, "schedule": walk, "trials": MOST_STEPS,
                   "target": budget | {"extend": EXTEND}}  # fmt: skip
    else:
        fields |= {"trials": TRIALS, "target": budget}
    given = {key: value for key, value in values.items() if value is not None}
    return Plan(data=data, network=network, **{**fields, **given})


def method_for(network: str) -> str:
    """The method that a network is sized by where nobody says which."""
    return "growing" if network in networks.names() and not networks.layered(network) else "shrinknets"


def path_to(method: str, limits: Iterable[str], epochs: int) -> tuple[int, Schedule] | None:
    """The path to a budget: epochs of its first step, and how it goes on; None where a search suits better.

    A step has an eighth of the epochs, the first a quarter; the network at the end is tuned for all of them.
    """
    found, walk = methods.method_class(method), Schedule(name="path", each=max(1, epochs // 8), settle=0, tune=epochs)
    if "latency" in limits or found.grows or not found.sizes or found.knob is None:
        return None
    try:
        methods.create(method, found.knob.low).check_epochs(walk.each)
    except InputError:
        return None
    return max(1, epochs // 4), walk


@dataclass(frozen=True)
class Tried:
    """A trial of `size`.

    Attributes:
        knob: Of the method.
        epochs: As far as it was trained.
    """

    knob: float
    epochs: list[Epoch]


@dataclass(frozen=True)
class Found:
    """What `size` found.

    Attributes:
        module: The network, plain, with the weights of its best epoch.
        epoch: That epoch, of the trial that it is from.
        knob: Of that trial.
        trials: All, in the order in which they ran.
    """

    module: nn.Module
    epoch: Epoch
    knob: float
    trials: list[Tried]


def size(
    module: nn.Module,
    data: Data,
    *,
    max_params: int | None = None,
    max_flops: int | None = None,
    max_latency: float | None = None,
    method: str | None = None,
    trials: int | None = None,
    epochs: int = 20,
    seed: int = 0,
    low: float | None = None,
    high: float | None = None,
    settings: dict[str, Any] | None = None,
    on_trial: Callable[[float, list[Epoch]], None] | None = None,
    **options: Any,
) -> Found:
    """Sizes copies of a module until one is just under a budget, and gives the best one that is under it.

    Parameters and FLOPs are come down to by a path: each step is `sizer.fit` from where the one before was, under a
    larger knob, until the network is small enough; then it is tuned. A latency, and methods that do not remove units
    step by step, are searched for: each trial is a copy under another knob, which a `SizeSampler` asks for. Validation
    accuracy chooses among all epochs that fit the budget. The module itself is left as it is.

    Args:
        module: The network, as large as its layers may be.
        data: What it is trained on.
        max_params, max_flops, max_latency: The budget, one of them: parameters, FLOPs of a sample's forward pass, or
            milliseconds of that pass, timed on the device that trains.
        method: One that sizes networks, with `settings`; shrinknets unless given, and growing of a graph.
        trials: At most so many; 8 of a search and 40 of a path unless given.
        epochs: Of a trial of a search, or of the tuning at the end of a path.
        seed: Of the search and the training of all its trials; step k of a path trains with seed + k.
        low, high: The range of the knob; the method's own unless given. A path may go a hundredfold beyond it.
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
    method = method or method_for("graph" if isinstance(module, Graph) else "mlp")
    knob = methods.method_class(method).knob
    if knob is None or not methods.method_class(method).sizes:
        raise InputError(f"{method} sizes nothing: take one that does, such as shrinknets")
    path = path_to(method, limits, epochs)
    wanted = Target(**limits, extend=1.0 if path is None else EXTEND)
    if not (wanted.latency or methods.method_class(method).grows):
        check_start(wanted, size_of(module, data, wanted), f"max_{wanted.kind}")
    bounds = wanted.reach(Range(low=low or knob.low, high=high or knob.high))
    tried: list[Tried] = []
    sized: list[Sized] = []
    with tempfile.TemporaryDirectory(prefix="sizer-size-") as place:

        def train(value: float, tunes: int | None = None, **more: Any) -> Sized | None:
            number = len(tried)
            run = sizer.fit(
                copy.deepcopy(module), data, methods.create(method, value, **(settings or {})),
                folder=Path(place, str(number)), **{"seed": seed, **options, **more},
            )  # fmt: skip
            tried.append(Tried(value, run.history))
            if on_trial is not None:
                on_trial(value, run.history)
            if not run.history:
                return None
            sized.append(Sized(number, value, size_of(run.net.finish(), data, wanted), tunes, run.status == COLLAPSED))
            return sized[-1]

        if path is None:
            _search(train, wanted, knob.name, bounds, sized, trials or TRIALS, epochs, seed)
        else:
            ends = low or knob.low, bounds.high
            _walk(train, path, ends, wanted, sized, trials or MOST_STEPS, seed, Path(place))
        number, best = _chosen(wanted, knob.name, bounds, tried, sized, None if path is None else path[1])
        weights = load_tensors(weights_file(Path(place, str(number)), best.epoch))[0]
    return Found(_rebuilt(module, data, best.widths, weights), best, tried[number].knob, tried)


Train = Callable[..., Sized | None]
"""knob, and arguments of `sizer.fit` -> the trial and the size that its network has; None where it gave none."""


def _search(
    train: Train, wanted: Target, knob: str, bounds: Range, sized: list[Sized], trials: int, epochs: int, seed: int
) -> None:
    """Independent trials, each under the knob that the sampler asks for."""
    sampler = SizeSampler(wanted.budgets, size=wanted.attribute, within=wanted.within, seed=seed)
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        found = train(trial.suggest_float(knob, bounds.low, bounds.high, log=True), epochs=epochs)
        if found is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_user_attr(wanted.attribute, found.size)
        study.tell(trial, 0.0)
        if all(aim.settled for aim in aims(wanted, knob, bounds, sized)):
            return


def _walk(
    train: Train, path: tuple[int, Schedule], ends: tuple[float, float], wanted: Target, sized: list[Sized],
    trials: int, seed: int, place: Path,
) -> None:  # fmt: skip
    """Steps from one network to the next, down to the budget, and the tuning of the last; each in a folder there."""
    first, schedule = path
    low, high = ends
    for number in range(trials):
        if is_over(high, wanted.budgets, wanted.within, sized):
            return
        step = towards(schedule, first, low, high, wanted.budgets, wanted.within, sized)
        steps, _ = held(wanted.budgets, wanted.within, sized)
        train(
            step.knob, step.tunes, epochs=step.sizing + step.settle, settle=step.settle, seed=seed + number,
            start=place / str(steps[-1].number) / STATE if steps else None,
            **({f"max_{wanted.kind}": round(step.limit)} if step.limit else {}),
        )  # fmt: skip


def _chosen(
    wanted: Target, knob: str, bounds: Range, tried: Sequence[Tried], sized: Sequence[Sized], path: Schedule | None
) -> tuple[int, Epoch]:
    """The trial and the epoch of the best network under the budget."""
    (budget,) = wanted.budgets
    last = {each.number: each.size for each in sized}

    def fits(number: int, epoch: Epoch) -> bool:
        if not wanted.latency:
            return bool(getattr(epoch, wanted.cost) <= budget)
        return last[number] <= budget and epoch.parameters <= tried[number].epochs[-1].parameters

    every = [(number, epoch) for number in last for epoch in tried[number].epochs if math.isfinite(epoch.val_accuracy)]
    fitting = [pair for pair in every if fits(*pair)]
    if not fitting:
        (aim,) = aims(wanted, knob, bounds, sized, path)
        near = f"; the nearest has {wanted.told(aim.nearest.size)}" if aim.nearest else ""
        raise InputError(
            f"no network of {len(tried)} trials is within max_{wanted.kind}={wanted.told(budget)}: {aim.why}{near}"
        )
    return min(fitting, key=lambda pair: (-pair[1].val_accuracy, pair[1].parameters, pair[0], pair[1].epoch))


def _rebuilt(module: nn.Module, data: Data, widths: dict[str, int], weights: dict[str, Any]) -> nn.Module:
    """A copy of the module with these widths and weights."""
    net = sizer.attach(copy.deepcopy(module), data.x_train[:2], methods.create("fixed"))
    net.resize_to(widths, blank=True)
    plain = net.finish()
    plain.load_state_dict(weights)
    return plain
