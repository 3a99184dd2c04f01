"""Optuna asks and tells: the space of an arm, its sampler, and trials that a resumed sweep draws again the same.

The driver is the only one who asks, so trial k of an arm is known before it is asked: its point, where one was
put first or lies on a grid, or the state of the sampler, which is seeded anew for every trial.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from studies.plan import Arm, Plan, Range

optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Point:
    """What one trial trains with.

    Attributes:
        knob: The method's knob; None for a baseline.
        widths: A baseline's drawn widths, else the widths the plan starts from (None: the network's own).
        weight_decay: The L2 penalty drawn for a baseline that has one, else 0.
    """

    knob: float | None
    widths: list[int] | None
    weight_decay: float


def space(plan: Plan, arm: Arm) -> dict[str, FloatDistribution | IntDistribution]:
    """What the study of `arm` draws: the knob alone, or a baseline's `depth`, `width_LAYER`s and `weight_decay`."""
    if arm.sizes:
        assert arm.knob is not None
        return {str(arm.knob_name): _float(arm.knob)}
    drawn: dict[str, FloatDistribution | IntDistribution] = {}
    if arm.depth is not None:
        drawn["depth"] = _whole(arm.depth)
    for layer, bounds in _layer_ranges(plan, arm).items():
        drawn[f"width_{layer}"] = _whole(bounds)
    if arm.weight_decay is not None:
        drawn["weight_decay"] = _float(arm.weight_decay)
    return drawn


def put_first(plan: Plan, name: str, number: int) -> dict[str, Any] | None:
    """The parameters of trial `number` where the plan fixes them: an enqueued point, or its place on the grid."""
    arm = plan.arms[name]
    if number < len(arm.enqueue):
        return _parameters(plan, arm, arm.enqueue[number])
    if plan.setting(name, "sampler") == "grid":
        assert arm.knob is not None
        points = max(plan.trials - len(arm.enqueue), 1)
        spread = np.geomspace if arm.knob.log else np.linspace
        grid = spread(arm.knob.low, arm.knob.high, points)
        return {str(arm.knob_name): float(grid[min(number - len(arm.enqueue), points - 1)])}
    return None


def ask(plan: Plan, name: str, study: optuna.Study, number: int, queued: bool) -> optuna.Trial:
    """Asks the study of an arm for its next trial.

    Args:
        plan: The evaluation.
        name: The arm.
        study: Its study.
        number: The number that the trial will have.
        queued: Whether a row WAITING for it stands in the study already.

    Returns:
        The trial, RUNNING, its parameters drawn.
    """
    study.sampler = sampler(plan, name, number)
    fixed = put_first(plan, name, number)
    if fixed is not None and not queued:
        study.enqueue_trial(fixed)
    return _draw(plan, name, study.ask())


def adopt(plan: Plan, name: str, study: optuna.Study, row: FrozenTrial) -> optuna.Trial:
    """Takes a RUNNING row over, drawing what a driver that was killed in between had not drawn yet."""
    study.sampler = sampler(plan, name, row.number)
    return _draw(plan, name, optuna.Trial(study, row._trial_id))


def point(plan: Plan, name: str, parameters: dict[str, Any]) -> Point:
    """What a trial with these parameters of its study trains with."""
    arm = plan.arms[name]
    if arm.sizes:
        return Point(float(parameters[str(arm.knob_name)]), plan.widths, 0.0)
    layers = plan.layers(parameters.get("depth"))
    widths = [int(parameters[f"width_{layer}"]) for layer in layers]
    return Point(None, widths, float(parameters.get("weight_decay", 0.0)))


def tell(study: optuna.Study, number: int, value: float | None) -> None:
    """Ends a trial with its best validation accuracy, or as failed (None).

    A row that somebody ended meanwhile, as the dashboard's FAIL button does, stays as it is.
    """
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.tell(number, value, state=state, skip_if_finished=True)


def sampler(plan: Plan, name: str, number: int) -> BaseSampler:
    """The sampler of an arm, seeded for trial `number`; the papers drew at random."""
    kind = plan.setting(name, "sampler")
    seed = _seed(plan, name, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "tpe":
            # Trials run side by side: the liar keeps TPE from proposing what is being tried.
            return TPESampler(seed=seed, constant_liar=True)
        if kind == "gp":
            return GPSampler(seed=seed, deterministic_objective=False)
        if kind == "qmc":
            return _Sequence(space(plan, plan.arms[name]), _seed(plan, name, 0))
        return RandomSampler(seed=seed)


class _Sequence(QMCSampler):
    """Optuna's Sobol sequence from the first trial on, where Optuna draws at random until one has ended."""

    def __init__(self, drawn: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(scramble=True, seed=seed)
        self._drawn = dict(drawn)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._drawn


def _draw(plan: Plan, name: str, trial: optuna.Trial) -> optuna.Trial:
    fixed = put_first(plan, name, trial.number) or {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for parameter, bounds in space(plan, plan.arms[name]).items():
            layer = parameter.removeprefix("width_")
            if layer != parameter and layer not in plan.layers(trial.params.get("depth")):
                continue
            # A point of one's own may lie outside the range that the sampler draws from.
            value = fixed.get(parameter, bounds.low)
            low, high = min(bounds.low, value), max(bounds.high, value)
            if isinstance(bounds, IntDistribution):
                trial.suggest_int(parameter, low, high, log=bounds.log)
            else:
                trial.suggest_float(parameter, low, high, log=bounds.log)
    return trial


def _parameters(plan: Plan, arm: Arm, given: float | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict):
        return {str(arm.knob_name): float(given)}
    widths = given["widths"]
    chosen: dict[str, Any] = {"depth": len(widths)} if arm.depth is not None else {}
    chosen |= {f"width_{layer}": width for layer, width in zip(plan.layers(len(widths)), widths, strict=True)}
    return chosen | {key: float(value) for key, value in given.items() if key == "weight_decay"}


def _layer_ranges(plan: Plan, arm: Arm) -> dict[str, Range]:
    layers = plan.layers(int(arm.depth.high) if arm.depth else None)
    assert arm.widths is not None
    return {layer: arm.widths[layer] if isinstance(arm.widths, dict) else arm.widths for layer in layers}


def _float(bounds: Range) -> FloatDistribution:
    return FloatDistribution(bounds.low, bounds.high, log=bounds.log)


def _whole(bounds: Range) -> IntDistribution:
    return IntDistribution(int(bounds.low), int(bounds.high), log=bounds.log)


def _seed(plan: Plan, name: str, number: int) -> int:
    text = f"{plan.seed} {name} {number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
