"""Which of Optuna's pruners ends an arm's trials early, by validation accuracy after each epoch. Off unless named.

A small network learns later than a large one, so that what prunes by accuracy prefers large ones: a plan's pruner
holds for baselines that draw their widths, and an arm that sizes itself is pruned by a field of its own alone.

Left out are Optuna's WilcoxonPruner, whose steps are no epochs, and PatientPruner: what it ends are networks at their
best, of which no weights would be kept.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator

from sizer.errors import InputError, unknown
from sizer.methods import method_class
from studies.strict import Named

NONE = "none"
PRUNERS: dict[str, type[BasePruner]] = {
    "median": MedianPruner,
    "percentile": PercentilePruner,
    "successive-halving": SuccessiveHalvingPruner,
    "hyperband": HyperbandPruner,
    "threshold": ThresholdPruner,
}
# Said by the plan already, or by the sweep.
_OURS = {"max_resource": "epochs"}
_FINITE = ConfigDict(allow_inf_nan=False)


class Pruner(Named):
    """A pruner as a plan names it: `"hyperband"`, or `{ name = "hyperband", reduction_factor = 4 }`.

    Attributes:
        name: One of `PRUNERS`, or `none`. Whatever else is given are arguments of that pruner of Optuna's.
    """

    model_config = ConfigDict(extra="allow")
    example = 'a name such as "hyperband", or { name = "hyperband", ... }'

    name: str

    @model_validator(mode="after")
    def _none_takes_nothing(self) -> Pruner:
        if self.name == NONE and self.model_extra:
            raise ValueError(f"{NONE} takes no arguments, got {', '.join(self.model_extra)}")
        return self


def pruner_of(spec: Mapping[str, Any], arm: str) -> Mapping[str, Any] | None:
    """The pruner that holds for an arm: its own, else the plan's where the arm is a baseline that draws its widths.

    Args:
        spec: A plan as `Plan.spec` gives it.
        arm: An arm, or a stage, which nothing prunes.

    Returns:
        Its name and its arguments, for `create`; None where nothing prunes.
    """
    found = spec["arms"][arm]
    given = found.get("pruner")
    if given is None and not method_class(found["method"]).sizes and not _takes(found):
        given = spec.get("pruner")
    return None if given is None or given["name"] == NONE or "stage" in found else given


def create(given: Mapping[str, Any], epochs: int) -> BasePruner:
    """Optuna's pruner for trials of so many epochs.

    Args:
        given: Its name and its arguments.
        epochs: Of every trial: the resource of Hyperband.

    Raises:
        InputError: There is no such pruner, or it does not take such an argument.
    """
    name = given["name"]
    if name not in PRUNERS:
        raise unknown("pruner", name, [NONE, *PRUNERS])
    kind = PRUNERS[name]
    arguments = {key: value for key, value in given.items() if key != "name"}
    parameters = inspect.signature(kind).parameters
    hints = typing.get_type_hints(kind.__init__)
    for key, value in arguments.items():
        if key in _OURS:
            raise InputError(f"{key}: {name} goes by the {_OURS[key]} of the plan; leave it out, got {value!r}")
        if key not in parameters:
            raise unknown(f"argument of {name}", key, parameters.keys() - _OURS.keys())
        try:
            TypeAdapter(hints[key], config=_FINITE).validate_python(value, strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Input ")
            raise InputError(f"{key}: {message}, got {value!r}") from None
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in arguments]
    if missing:
        raise InputError(f"{missing[0]} is missing: {name} needs it")
    if name == "hyperband":
        arguments["max_resource"] = epochs
    if name == "successive-halving":
        # Optuna would wait for the first trial that is complete, and then take 1 up to 199 epochs.
        arguments.setdefault("min_resource", 1)
    if isinstance(least := arguments.get("min_resource"), int) and least >= epochs:
        raise InputError(f"min_resource: {name} would prune nothing in {epochs} epochs, got {least}")
    try:
        if name == "hyperband":  # it looks at these no sooner than in its first trial
            halving = {key: value for key, value in arguments.items() if key != "max_resource"}
            SuccessiveHalvingPruner(**{"min_resource": 1, **halving})
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {error}") from None


def _takes(arm: Mapping[str, Any]) -> bool:
    """Whether a baseline takes its widths from elsewhere, so that its trials differ by their seed."""
    widths = arm.get("widths")
    return isinstance(widths, Mapping) and "cut" in widths
