"""A path: an arm's trials as one run through its knob, each step from where the one before was.

Each step is a trial of its own. Its first epochs size the network under a knob that is a factor further; then the state
of weights and optimiser is handed over to the next step, and the last epochs settle: the widths stay, no penalty acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from sizer.methods import method_class
from studies import attempts
from studies.attempts import HANDOVER
from studies.files import Files
from studies.strict import Strict


class Schedule(Strict):
    """How an arm walks: `"path"` in a plan, or a table with this name and any of the other fields.

    Attributes:
        name: `path`.
        each: Epochs of each step but the first under its knob; the first has the arm's epochs.
        settle: Epochs of each step after those, without the penalty.
    """

    name: Literal["path"]
    each: int = Field(default=2, ge=1)
    settle: int = Field(default=1, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _by_name_alone(cls, given: Any) -> Any:
        if not isinstance(given, str | Mapping | Schedule):
            raise ValueError(f'must be "path", or {{ name = "path", each = 2, settle = 1 }}, got {given!r}')
        return {"name": given} if isinstance(given, str) else given

    def sizing(self, number: int, epochs: int) -> int:
        """Epochs of a step under its knob, where an arm's trials have so many."""
        return self.each if number else epochs


def walks(spec: Mapping[str, Any]) -> dict[str, Schedule]:
    """The arms that walk, and how: of a plan as `studies.plan.Plan.spec` gives it."""
    found = {name: arm.get("schedule") or spec.get("schedule") for name, arm in spec["arms"].items()}
    return {
        name: Schedule(**schedule)
        for name, schedule in found.items()
        if schedule and "stage" not in spec["arms"][name] and method_class(spec["arms"][name]["method"]).sizes
    }


def knob_at(method: str, low: float, high: float, number: int, steps: int) -> float:
    """The knob of a step: from the low end upward, so that networks shrink; from the high end where they grow."""
    share = number / max(1, steps - 1)
    share = 1 - share if method_class(method).grows else share
    return float(low * (high / low) ** share)


def start_of(files: Files, study_name: str, rows: Iterable[FrozenTrial]) -> str | None:
    """The state that the next step begins with: what the last complete one left; None before there is one.

    Args:
        files: Of the evaluation.
        study_name: Of the arm's study.
        rows: Its trials.
    """
    complete = [row for row in rows if row.state == TrialState.COMPLETE]
    for row in sorted(complete, key=lambda row: -row.number):
        folder = f"{attempts.run_of(study_name, row.number)}/{row.user_attrs.get('attempt', '')}"
        if row.user_attrs.get("attempt") and HANDOVER in files.names(folder):
            return f"{folder}/{HANDOVER}"
    return None
