"""The arms of an evaluation: what each draws, what it takes from others, and the stages that come before its trials.

An arm that takes something from another waits for it. Two things are found by stages of their own, each an Optuna study
that stands before the arm's: a grid of learning rates, and the knob that gives another arm's number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sizer import methods
from sizer.errors import InputError, unknown
from studies.path import Schedule
from studies.pruning import Pruner
from studies.strict import Strict

_KNOBS = {kind.knob.name for kind in map(methods.method_class, methods.names()) if kind.knob}
_LISTS = {"knob", "settings", "enqueue", "start", "learning_rate", "pruner", "schedule"}
Rate = Annotated[float, Field(gt=0)]
Width = Annotated[int, Field(ge=1)]
TRIES = 5
"""Trials of a stage that looks for a knob."""


class Range(Strict):
    """Where a value is drawn from: low <= value <= high, both positive.

    Attributes:
        low: The smallest value.
        high: The largest value.
        log: Uniform in the logarithm (True) or in the value itself.
    """

    low: float = Field(gt=0)
    high: float = Field(gt=0)
    log: bool = True

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got low={self.low:g}, high={self.high:g}")
        return self

    @property
    def middle(self) -> float:
        """Half of what is drawn lies below it."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


class Taken(Strict):
    """Widths that are taken from elsewhere, not drawn.

    Attributes:
        mean_of: The arm whose mean widths they are, over the trials of its best point; the plan's own start widths
            where None.
        uniform: All convolutional layers as wide as one another (all layers, where there are none), so that the network
            has as many parameters (Dynamic auto-sizing's "Static B").
        cut: By what share every layer is narrowed, in [0, 1); 0 leaves them as they are.
    """

    mean_of: str | None = None
    uniform: bool = False
    cut: float = Field(default=0.0, ge=0, lt=1)


def _kind(value: Any) -> str:
    if isinstance(value, Taken) or (isinstance(value, Mapping) and set(value) & set(Taken.model_fields)):
        return "Taken"
    return "Range" if isinstance(value, Range) or (isinstance(value, Mapping) and "low" in value) else "Layers"


Widths = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[dict[str, Range], Tag("Layers")] | Annotated[Taken, Tag("Taken")],
    Discriminator(_kind),
]


class Arm(Strict):
    """One method (or baseline) of an evaluation: what its study draws, and where it differs from the plan.

    Attributes:
        method: A name of `sizer.methods.names()`; the arm's own name unless given.
        knob: The range of the method's knob, written under the knob's own name (`lambda`, `alpha`).
        settings: Keyword settings of the method, one value each.
        enqueue: Points that come before the sampler's own. In a sizing arm numbers; in a baseline tables such
            as `{widths = [300, 100], weight_decay = 1e-4}`.
        start: Sizing arms: the widths they start from, instead of the plan's: a list, or taken from another arm.
        match: Sizing arms: the arm whose mean number of parameters the knob is to give. A stage looks for that knob.
        widths: Baselines: the range of every layer's width, or one a layer; or taken from another arm.
        depth: Baselines: the range of the number of hidden layers, where the network leaves it free.
        weight_decay: Baselines with an L2 penalty: its range.
        learning_rate: Overrides the plan's, for this arm only. Of a list (a grid) a stage chooses by validation; of a
            range, in a baseline, each trial draws its own.
        epochs, batch_size, optimizer, sampler, precision: Override the plan's, for this arm only.
        schedule: Sizing arms: `"path"`, or a table; its trials are then one walk through the knob, each from where the
            one before was. See `studies.path`.
        pruner: Overrides the plan's, which a sizing arm does not have; see `studies.pruning`.
        stage: What a stage looks for, `learning_rate` or `knob`; None in an arm that a plan names.
    """

    method: str
    knob: Range | None = None
    settings: dict[str, bool | int | float | str] = Field(default={})
    enqueue: list[Annotated[float, Field(gt=0)] | dict[str, Any]] = Field(default=[])
    start: Annotated[list[Width], Field(min_length=1)] | Taken | None = None
    match: str | None = None
    widths: Widths | None = None
    depth: Range | None = None
    weight_decay: Range | None = None
    learning_rate: Rate | Annotated[list[Rate], Field(min_length=1)] | Range | None = None
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    optimizer: str | None = None
    sampler: str | None = None
    precision: str | None = None
    pruner: Pruner | None = None
    schedule: Schedule | None = None
    stage: Literal["learning_rate", "knob"] | None = None

    @property
    def knob_name(self) -> str | None:
        """The name of the method's knob; None for a baseline."""
        knob = methods.method_class(self.method).knob
        return knob.name if knob else None

    @property
    def sizes(self) -> bool:
        """Whether the arm's method finds widths itself."""
        return methods.method_class(self.method).sizes

    @property
    def taken(self) -> Taken | None:
        """Where its widths are taken from, or those it starts from; None where nowhere."""
        widths = self.start if self.sizes else self.widths
        return widths if isinstance(widths, Taken) else None

    @property
    def first_knob(self) -> float | None:
        """The knob that its stages begin with: the first point put first, else the middle of the range."""
        if self.knob is None:
            return None
        first = self.enqueue[0] if self.enqueue else None
        return float(first) if isinstance(first, int | float) else math.sqrt(self.knob.low * self.knob.high)

    def stages(self) -> dict[str, Arm]:
        """The stages that come before its trials, by what they add to its name, in the order in which they run."""
        found: dict[str, Arm] = {}
        common: dict[str, Any] = {"enqueue": self.enqueue[:1], "sampler": None, "schedule": None}
        if isinstance(self.learning_rate, list):
            found["learning-rate"] = self.model_copy(update={**common, "match": None, "stage": "learning_rate"})
        if self.match is not None:
            found[str(self.knob_name)] = self.model_copy(update={**common, "stage": "knob"})
        return found

    def waits_for(self, name: str) -> set[str]:
        """The arms that must have ended before a trial of this one, which is called `name`, can begin."""
        needed = {self.match} if self.match else set()
        if self.taken and self.taken.mean_of:
            needed.add(self.taken.mean_of)
        if self.stage is None:
            needed |= {f"{name}.{stage}" for stage in self.stages()}
        elif self.stage == "knob" and isinstance(self.learning_rate, list):
            needed.add(f"{name.removesuffix(f'.{self.knob_name}')}.learning-rate")
        return needed


def with_stages(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms with their stages, each before the arm that it serves.

    Raises:
        InputError: An arm waits for one that is not there, for itself, or for one that waits for it.
    """
    found: dict[str, Arm] = {}
    for name, arm in arms.items():
        found |= {f"{name}.{stage}": made for stage, made in arm.stages().items()}
        found[name] = arm
    if twice := [name for name in found if name in arms and found[name] is not arms[name]]:
        raise InputError(f"arms.{twice[0]}: a stage is called so; give the arm another name")
    for name, arm in arms.items():
        taken = arm.taken.mean_of if arm.taken else None
        for field, other in (("match", arm.match), ("start" if arm.sizes else "widths", taken)):
            if other is not None and other not in arms:
                raise InputError(f"arms.{name}.{field}: {unknown('arm', other, arms)}")
    for name in found:
        waiting = needed(found, name)
        if name in waiting:
            raise InputError(f"arms.{name} waits for itself, by way of {', '.join(sorted(waiting - {name})) or name}")
    return found


def needed(arms: Mapping[str, Arm], name: str) -> set[str]:
    """The arms and stages that must have ended before an arm's trials can begin, those of these among them."""
    found: set[str] = set()
    todo = list(arms[name].waits_for(name))
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo += arms[other].waits_for(other)
    return found


def planned(spec: Mapping[str, Any], arm: str) -> int:
    """How many trials an arm or a stage has, from a plan as `Plan.spec` gives it."""
    stage = spec["arms"][arm].get("stage")
    if stage == "learning_rate":
        return len(spec["arms"][arm]["learning_rate"])
    return TRIES if stage == "knob" else int(spec["trials"]) * int(spec.get("folds") or 1)


def affordable(most: float, trials: float, flops: float, begun: int) -> int:
    """How many trials so many FLOPs of training allow if the others cost what these did; no fewer than have begun."""
    return max(begun, math.ceil(trials * most / flops))


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives each arm its method's name and moves the knob's range from the knob's own name to `knob`."""
    arms = values.get("arms")
    if not isinstance(arms, Mapping):
        return dict(values)
    named: dict[str, Any] = {}
    for name, arm in arms.items():
        if not isinstance(arm, Mapping):
            named[name] = arm
            continue
        if "stage" in arm:
            raise InputError(
                f"arms.{name}.stage: {unknown('field', 'stage', set(Arm.model_fields) - {'stage', 'knob'})}"
            )
        method = arm.get("method", name)
        if method not in methods.names():
            raise unknown("method", str(method), methods.names())
        entry = {**arm, "method": method}
        knob = methods.method_class(method).knob
        if knob is not None:
            entry["knob"] = entry.pop(knob.name, entry.get("knob", {"low": knob.low, "high": knob.high}))
            if not isinstance(entry["knob"], Mapping | Range):
                raise InputError(
                    f"arms.{name}.{knob.name} must be a range such as {{low = {knob.low:g}, high = {knob.high:g}}},"
                    f" got {entry['knob']!r}; single points go into enqueue"
                )
            settings = arm.get("settings")
            swept = {**entry, **(settings if isinstance(settings, Mapping) else {})}
            for field, value in swept.items():
                known = field in {*Arm.model_fields, *_KNOBS} or field not in entry
                swept_rate = field == "learning_rate" and not isinstance(value, list)
                if known and isinstance(value, Mapping | Range | list) and (field not in _LISTS or swept_rate):
                    raise InputError(
                        f"arms.{name}.{field}: a sizing arm sweeps {knob.name} and nothing else, got {value!r};"
                        " give one value (the widths that it starts from are `start`, or stand at the top of the plan)"
                    )
        named[name] = entry
    return {**values, "arms": named}
