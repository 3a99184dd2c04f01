"""Budgets that a search aims just under: what a plan says of them, and how far its trials have come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator
from torch import nn

from sizer import cost
from sizer.datasets import Data
from sizer.errors import InputError
from sizer.methods import method_class
from studies import tables
from studies.arms import Range
from studies.path import TUNES, Schedule, Sized, held, is_collapsing, is_over, is_stuck, walks
from studies.size_sampler import WITHIN
from studies.strict import Strict

if TYPE_CHECKING:
    from studies.plan import Plan

SIZE = "size"
"""The sampler that looks for sizes."""

KINDS = {"params": "parameters", "flops": "flops", "latency": "latency_ms"}
"""Field of a target -> what it counts."""

SETTLED = "settled"
"""What a study says of itself once no further trial is worth it: the target for which that holds."""
COLLAPSED = "collapsed"
"""The status of a trial whose network would have lost the last unit of a layer."""
_CERTAIN = 1.15
_END = 1.02


class Target(Strict):
    """Sizes that sizing arms look for: for each a network at most a little smaller, and not larger.

    Attributes:
        params: Numbers of parameters.
        flops: FLOPs of a forward pass of one sample; instead of parameters.
        latency: Milliseconds of a forward pass, timed by the worker that trained the network; instead of parameters.
        batch: Samples of the pass that is timed.
        within: How much smaller a network may be, as a share.
        extend: By what factor the knob's range may be left where a budget lies beyond it; 1 keeps to it.
    """

    params: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    flops: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    latency: list[Annotated[float, Field(gt=0)]] = Field(default=[])
    batch: int = Field(default=1, ge=1)
    within: float = Field(default=WITHIN, gt=0, lt=1)
    extend: float = Field(default=1.0, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Target:
        given = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind)}
        if len(given) != 1:
            got = ", ".join(f"{kind}={value}" for kind, value in given.items()) or "none"
            raise ValueError(f"must have params, flops or latency, one of them, got {got}")
        return self

    @property
    def kind(self) -> str:
        """Which of its fields has the budgets."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @property
    def cost(self) -> str:
        """What is counted: `parameters` or `flops`, as epochs name it, or `latency_ms`, as trials do."""
        return KINDS[self.kind]

    @property
    def budgets(self) -> list[float]:
        """The sizes, rising."""
        return sorted(set(getattr(self, self.kind)))

    def told(self, size: float) -> str:
        """A size as it is written."""
        return f"{size:.3g} ms" if self.latency else f"{round(size):,}"

    def reach(self, bounds: Range) -> Range:
        """A knob's range, as far as it may be extended."""
        return bounds.model_copy(update={"low": bounds.low / self.extend, "high": bounds.high * self.extend})

    @property
    def attribute(self) -> str:
        """The user attribute of a trial that holds the size of its network after the last epoch."""
        return f"final_{self.cost}"


@dataclass(frozen=True)
class Aim:
    """How far one budget is.

    Attributes:
        budget: The size.
        trial: The largest network that is one for the budget; None where there is none yet.
        nearest: The network whose size is nearest, be it larger or smaller; None before the first.
        why: Why there is none; empty where there is one.
        hopeless: Whether no trial in the range would give one.
    """

    budget: float
    trial: Sized | None = None
    nearest: Sized | None = None
    why: str = ""
    hopeless: bool = False

    @property
    def settled(self) -> bool:
        """Whether another trial would be of no use to it."""
        return self.trial is not None or self.hopeless


def sized(rows: Iterable[FrozenTrial], knob: str, target: Target) -> list[Sized]:
    """The complete trials of a study as far as they say their size, in order."""
    attribute = target.attribute
    return [
        Sized(
            row.number,
            float(row.params[knob]),
            row.user_attrs[attribute],
            row.user_attrs.get(TUNES),
            row.user_attrs.get("status") == COLLAPSED,
        )
        for row in sorted(rows, key=lambda row: row.number)
        if row.state == TrialState.COMPLETE and knob in row.params and row.user_attrs.get(attribute)
    ]


def searching(spec: Mapping[str, Any]) -> list[str]:
    """The arms that look for sizes: of a plan as `studies.plan.Plan.spec` gives it."""
    usual = SIZE if spec.get("target") else spec.get("sampler")
    walking = walks(spec)
    return [
        name
        for name, arm in spec["arms"].items()
        if method_class(arm["method"]).sizes
        and "stage" not in arm
        and name not in walking
        and arm.get("sampler", usual) == SIZE
    ]


def by_arm(spec: Mapping[str, Any], trials: pd.DataFrame, history: pd.DataFrame) -> dict[str, list[Aim]]:
    """How far the arms of an evaluation are that look for sizes.

    Args:
        spec: Its plan, as `Plan.spec` gives it.
        trials, history: As `studies.query` gives them.
    """
    if not spec.get("target"):
        return {}
    target = Target(**spec["target"])
    ended = history[history["trial_id"].isin(trials.loc[trials["state"] == "COMPLETE", "trial_id"])]
    last = ended.loc[ended.groupby("trial_id")["epoch"].idxmax()].sort_values("number")
    found: dict[str, list[Aim]] = {}
    walking = walks(spec)
    for name in [*searching(spec), *walking]:
        arm = spec["arms"][name]
        knob = method_class(arm["method"]).knob
        assert knob is not None
        own = (trials if target.latency else last).query("arm == @name").dropna(subset=[target.cost])
        tunes: dict[int, int] = dict(
            trials.loc[(trials["arm"] == name) & trials[TUNES].notna(), ["number", TUNES]].itertuples(index=False)
        )
        collapsed = set(trials.loc[(trials["arm"] == name) & (trials["status"] == COLLAPSED), "number"])
        sizes = [
            Sized(number, value, size, tunes.get(number), number in collapsed)
            for number, value, size in own[["number", "knob", target.cost]].itertuples(index=False, name=None)
        ]
        found[name] = aims(target, knob.name, target.reach(Range(**arm[knob.name])), sizes, walking.get(name))
    return found


def aims(target: Target, knob: str, bounds: Range, sized: Sequence[Sized], path: Schedule | None = None) -> list[Aim]:
    """How far each budget of a target is, by an arm's trials.

    Args:
        target: The plan's.
        knob: The name of the arm's knob.
        bounds: The range that the knob is drawn from.
        sized: The arm's trials that have ended.
        path: How they walk, if they do.
    """
    if path is not None:
        return [_aim_of_path(target, budget, knob, bounds, sized) for budget in target.budgets]
    return [_aim(target, budget, knob, bounds, sized) for budget in target.budgets]


def is_settled(
    target: Target, bounds: Range, sized: Sequence[Sized], found: Sequence[Aim], path: Schedule | None
) -> bool:
    """Whether an arm needs no more trials, where its aims are these."""
    return (
        is_over(bounds.high, target.budgets, target.within, sized)
        if path is not None
        else all(aim.settled for aim in found)
    )


def _aim_of_path(target: Target, budget: float, knob: str, bounds: Range, sized: Sequence[Sized]) -> Aim:
    if not sized:
        return Aim(budget, why="no trial has ended")
    steps, far = held(target.budgets, target.within, sized)
    tuned = [each for each in sized if each.tunes is not None and each.size <= budget]
    within = [each for each in tuned if each.size >= (1 - target.within) * budget]
    if within:
        return Aim(budget, trial=max(within, key=lambda each: each.size))
    nearest = min(sized, key=lambda each: (abs(math.log(each.size / budget)), -each.number))
    if tuned:
        least = max(each.size for each in tuned)
        why = f"several units went at once, down to {target.told(least)}"
        return Aim(budget, None, nearest, why, hopeless=True)
    if is_collapsing(far):
        why = f"a layer was at its last unit with {target.told(sized[-1].size)} in all: start from one with more units"
        return Aim(budget, None, nearest, why, hopeless=True)
    if is_stuck(bounds.high, steps):
        why = f"{knob} = {bounds.high:g}, the end of its range, still gives {target.told(steps[-1].size)}"
        return Aim(budget, None, nearest, f"{why}: raise high or extend", hopeless=True)
    return Aim(budget, None, nearest, "more steps may come to it")


def _aim(target: Target, budget: float, knob: str, bounds: Range, sized: Sequence[Sized]) -> Aim:
    if not sized:
        return Aim(budget, why="no trial has ended")
    fitting = [each for each in sized if (1 - target.within) * budget <= each.size <= budget]
    if fitting:
        return Aim(budget, trial=max(fitting, key=lambda each: (each.size, -each.number)))
    nearest = min(sized, key=lambda each: (abs(math.log(each.size / budget)), each.number))
    low, high = bounds.low, bounds.high
    last = [each for each in sized if each.knob * _END >= high and each.size > budget]
    first = [each for each in sized if each.knob <= low * _END and each.size < (1 - target.within) * budget]
    for end, word, beyond in ((high, "raise", last), (low, "lower", first)):
        if beyond:
            far = max(abs(math.log(each.size / budget)) for each in beyond) > math.log(_CERTAIN)
            field = "high" if beyond is last else "low"
            told = target.told(beyond[-1].size)
            why = f"{knob} = {end:g}, the end of its range, still gives {told}: {word} {field} or extend"
            return Aim(budget, None, nearest, why, far or len(beyond) > 1)
    above = [each.knob for each in sized if each.size > budget]
    below = [each.knob for each in sized if each.size <= budget]
    if above and below and max(above) > min(below):
        why = f"sizes are too noisy to order: {knob} = {max(above):g} gave more than {min(below):g}"
        return Aim(budget, None, nearest, why)
    return Aim(budget, None, nearest, "more trials may find one")


def check(plan: Plan, data: Data) -> None:
    """Whether all budgets of a plan lie between the smallest network and the one that sizing arms start from.

    Raises:
        InputError: One does not; the line names it and the size that it would have to be within.
    """
    wanted = plan.target
    if wanted is None or wanted.latency:  # what a pass takes is known once it is timed where networks train
        return

    def size(widths: list[int]) -> float:
        return size_of(plan.build(data.input_shape, data.outputs, widths), data, wanted)

    widths = list(plan.start_widths().values())
    # A width of 1 cannot be told from a dimension that is broadcast, in a network that has to be traced.
    # Of networks that grow nobody knows how large they will be.
    if not all(method_class(plan.every[name].method).grows for name in plan.aiming):
        check_start(wanted, size(widths), f"target.{wanted.kind}")
    least = size([min(width, 2) for width in widths])
    for budget in wanted.budgets:
        if budget < least:
            raise InputError(
                f"target.{wanted.kind}: {budget:,} is less than the smallest such network has, {least:,}: take another"
                " network"
            )


def check_start(wanted: Target, start: float, name: str) -> None:
    """Whether all budgets are smaller than what a network has before it is sized.

    Raises:
        InputError: One is not; the line begins with its name.
    """
    for budget in wanted.budgets:
        if budget >= start:
            raise InputError(
                f"{name}: {wanted.told(budget)} is no less than the network has before it is sized,"
                f" {wanted.told(start)}: start from a larger one, or train it as it is"
            )


def size_of(module: nn.Module, data: Data, wanted: Target) -> float:
    """What a network, plain and on the device it is timed on, has of what a target counts."""
    if wanted.cost == "parameters":
        return cost.parameters(module)
    if wanted.cost == "flops":
        return cost.flops(module, (data.x_train[:1],))[0]
    device = next(module.parameters()).device
    return 1000 * cost.latency(module, (data.x_val[: wanted.batch].to(device),), runs=100)


def settled(connection: sa.Connection, spec: Mapping[str, Any], arms: Mapping[str, str]) -> set[str]:
    """The arms that ask for no more trials, as their studies say of the limits that the plan has now.

    Args:
        connection: To the database.
        spec: The plan, as `Plan.spec` gives it.
        arms: Name of a study -> its arm.
    """
    limits = [spec[limit] for limit in ("target", "max_training_flops") if spec.get(limit)]
    if not limits:
        return set()
    said, study = tables.study_user_attributes.c, tables.studies.c
    wanted = sa.select(study.study_name, said.value_json).where(
        study.study_id == said.study_id, study.study_name.in_(arms), said.key == SETTLED
    )
    return {arms[name] for name, text in connection.execute(wanted) if json.loads(text) in limits}
