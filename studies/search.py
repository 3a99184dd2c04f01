"""Optuna asks and tells: the space of an arm, its sampler, and trials that a resumed sweep draws again the same.

The driver is the only one who asks, so trial k of an arm is known before it is asked: its point, where one was
put first or lies on a grid, or the state of the sampler, which is seeded anew for every trial.
"""

from __future__ import annotations

import contextlib
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

from studies.arms import Arm, Range
from studies.path import Step, knob_at, towards
from studies.plan import Plan
from studies.size_sampler import SizeSampler
from studies.stages import Resolved
from studies.target import SIZE, sized

optuna.logging.set_verbosity(optuna.logging.ERROR)


NOTHING = Resolved()


@dataclass(frozen=True)
class Point:
    """What one trial trains with.

    Attributes:
        knob: The method's knob; None for a baseline.
        widths: A baseline's drawn widths, else the widths the plan starts from (None: the network's own).
        weight_decay: The L2 penalty drawn for a baseline that has one, else 0.
        learning_rate: The plan's, the arm's, the best of its grid, or what a baseline drew.
    """

    knob: float | None
    widths: list[int] | None
    weight_decay: float
    learning_rate: float


def space(plan: Plan, arm: Arm) -> dict[str, FloatDistribution | IntDistribution]:
    """What a study draws: the knob alone, or a baseline's `depth`, `width_LAYER`s, `weight_decay` and `learning_rate`.

    A stage that tries learning rates draws nothing else. Widths that a baseline takes from elsewhere are no draws.
    """
    if arm.stage == "learning_rate":
        assert isinstance(arm.learning_rate, list)
        return {"learning_rate": FloatDistribution(min(arm.learning_rate), max(arm.learning_rate), log=True)}
    if arm.sizes:
        assert arm.knob is not None
        return {str(arm.knob_name): _float(plan.reach(arm))}
    drawn: dict[str, FloatDistribution | IntDistribution] = {}
    if arm.depth is not None:
        drawn["depth"] = _whole(arm.depth)
    for layer, bounds in _layer_ranges(plan, arm).items() if arm.taken is None else ():
        drawn[f"width_{layer}"] = _whole(bounds)
    if arm.weight_decay is not None:
        drawn["weight_decay"] = _float(arm.weight_decay)
    if isinstance(arm.learning_rate, Range):
        drawn["learning_rate"] = _float(arm.learning_rate)
    return drawn


def given(plan: Plan, name: str, number: int, resolved: Resolved, study: optuna.Study) -> dict[str, Any] | None:
    """The parameters of trial `number` where they are known before it is asked for.

    They are where other arms say them, where a point was put first or lies on a grid, and in all folds of a point but
    the first.
    """
    arm = plan.every[name]
    if arm.stage == "learning_rate":
        assert isinstance(arm.learning_rate, list)
        return {"learning_rate": arm.learning_rate[number]}
    fold = plan.fold(name, number)
    if fold:
        return dict(row_of(study, number - fold).params)
    if (step := step_of(plan, name, number, study)) is not None:
        return {str(arm.knob_name): step.knob}
    if resolved.knob is not None:
        return {str(arm.knob_name): resolved.knob}
    if arm.taken is not None and not arm.sizes:
        assert resolved.widths is not None
        return {f"width_{layer}": width for layer, width in zip(plan.layers(), resolved.widths, strict=True)}
    return put_first(plan, name, number // (plan.folds or 1))


def step_of(plan: Plan, name: str, number: int, study: optuna.Study) -> Step | None:
    """What trial `number` of an arm that walks is; None of others."""
    arm, schedule = plan.every[name], plan.path(name)
    if schedule is None:
        return None
    assert arm.knob is not None
    if plan.target is None:
        epochs, settle = plan.epochs_of(name, number)
        knob = knob_at(arm.method, arm.knob.low, arm.knob.high, number, plan.trials)
        return Step(knob, epochs - settle, settle)
    rows = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    before = [each for each in sized(rows, str(arm.knob_name), plan.target) if each.number < number]
    epochs = int(plan.setting(name, "epochs"))
    wanted = plan.target
    return towards(schedule, epochs, arm.knob.low, plan.reach(arm).high, wanted.budgets, wanted.within, before)


def put_first(plan: Plan, name: str, at: int) -> dict[str, Any] | None:
    """The parameters of point `at` where the plan fixes them: an enqueued point, or its place on the grid."""
    arm = plan.every[name]
    if at < len(arm.enqueue):
        return _parameters(plan, arm, arm.enqueue[at])
    if plan.draws_by(name) == "grid":
        assert arm.knob is not None
        points = max(plan.trials - len(arm.enqueue), 1)
        spread = np.geomspace if arm.knob.log else np.linspace
        grid = spread(arm.knob.low, arm.knob.high, points)
        return {str(arm.knob_name): float(grid[min(at - len(arm.enqueue), points - 1)])}
    return None


def ask(
    plan: Plan, name: str, study: optuna.Study, number: int, queued: bool, resolved: Resolved = NOTHING
) -> optuna.Trial:
    """Asks the study of an arm for its next trial.

    Args:
        plan: The evaluation.
        name: The arm.
        study: Its study.
        number: The number that the trial will have.
        queued: Whether a row WAITING for it stands in the study already.
        resolved: What it takes from other arms.

    Returns:
        The trial, RUNNING, its parameters drawn.
    """
    study.sampler = sampler(plan, name, number)
    fixed = given(plan, name, number, resolved, study)
    if fixed is not None and not queued:
        study.enqueue_trial(fixed)
    return _draw(plan, name, study.ask(), fixed or {})


def adopt(plan: Plan, name: str, study: optuna.Study, row: FrozenTrial, resolved: Resolved = NOTHING) -> optuna.Trial:
    """Takes a RUNNING row over, drawing what a driver that was killed in between had not drawn yet."""
    study.sampler = sampler(plan, name, row.number)
    fixed = {**(given(plan, name, row.number, resolved, study) or {}), **row.params}
    return _draw(plan, name, optuna.Trial(study, row._trial_id), fixed)


def point(plan: Plan, name: str, parameters: dict[str, Any], resolved: Resolved = NOTHING) -> Point:
    """What a trial with these parameters of its study trains with."""
    arm = plan.every[name]
    rate = parameters.get("learning_rate", resolved.learning_rate)
    rate = plan.setting(name, "learning_rate") if rate is None else rate
    if arm.sizes:
        knob = float(parameters[str(arm.knob_name)]) if arm.knob_name in parameters else arm.first_knob
        return Point(knob, resolved.widths or plan.widths, 0.0, rate)
    if arm.taken is not None:
        return Point(None, resolved.widths, float(parameters.get("weight_decay", 0.0)), rate)
    layers = plan.layers(parameters.get("depth"))
    widths = [int(parameters[f"width_{layer}"]) for layer in layers]
    return Point(None, widths, float(parameters.get("weight_decay", 0.0)), rate)


def row_of(study: optuna.Study, number: int) -> FrozenTrial:
    """One trial of a study, without reading the others.

    Raises:
        KeyError: There is none.
    """
    storage = study._storage
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def tell(study: optuna.Study, number: int, value: float | None, *, pruned: bool = False) -> TrialState:
    """Ends a trial with its best validation accuracy, as failed (None), or as pruned: with its last one, in any case.

    Returns:
        How it ended: a row that somebody ended meanwhile, as the dashboard's FAIL button does, stays as it is.
    """
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    if pruned:  # Optuna takes the value that was reported last
        state, value = TrialState.PRUNED, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            return study.tell(number, value, state=state, skip_if_finished=True).state
        return study.tell(number, value, state=state, skip_if_finished=True).state


def sampler(plan: Plan, name: str, number: int) -> BaseSampler:
    """The sampler of an arm, seeded for trial `number`; the papers drew at random."""
    kind = plan.draws_by(name)
    seed = _seed(plan, name, number)
    if kind == SIZE:
        wanted = plan.target
        if wanted is None:
            return SizeSampler(seed=seed)
        return SizeSampler(wanted.budgets, size=wanted.attribute, within=wanted.within, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "tpe":
            # Trials run side by side: the liar keeps TPE from proposing what is being tried.
            return TPESampler(seed=seed, constant_liar=True)
        if kind == "gp":
            return GPSampler(seed=seed, deterministic_objective=False)
        if kind == "qmc":
            return _Sequence(space(plan, plan.every[name]), _seed(plan, name, 0))
        return RandomSampler(seed=seed)


class _Sequence(QMCSampler):
    """Optuna's Sobol sequence from the first trial on, where Optuna draws at random until one has ended."""

    def __init__(self, drawn: Mapping[str, BaseDistribution], seed: int) -> None:
        super().__init__(scramble=True, seed=seed)
        self._drawn = dict(drawn)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._drawn


def _draw(plan: Plan, name: str, trial: optuna.Trial, fixed: Mapping[str, Any]) -> optuna.Trial:
    arm = plan.every[name]
    drawn = space(plan, arm)
    if arm.taken is not None and not arm.sizes and arm.stage is None:
        widths = {key: value for key, value in fixed.items() if key.startswith("width_")}
        drawn = {**{key: IntDistribution(width, width) for key, width in widths.items()}, **drawn}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for parameter, bounds in drawn.items():
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
    return chosen | {key: float(value) for key, value in given.items() if key in ("weight_decay", "learning_rate")}


def _layer_ranges(plan: Plan, arm: Arm) -> dict[str, Range]:
    layers = plan.layers(int(arm.depth.high) if arm.depth else None)
    assert isinstance(arm.widths, dict | Range)
    return {layer: arm.widths[layer] if isinstance(arm.widths, dict) else arm.widths for layer in layers}


def _float(bounds: Range) -> FloatDistribution:
    return FloatDistribution(bounds.low, bounds.high, log=bounds.log)


def _whole(bounds: Range) -> IntDistribution:
    return IntDistribution(int(bounds.low), int(bounds.high), log=bounds.log)


def _seed(plan: Plan, name: str, number: int) -> int:
    text = f"{plan.seed} {name} {number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
