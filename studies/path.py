"""A path: an arm's trials as one run through its knob, each step from where the one before was.

Each step is a trial of its own. Its first epochs size the network under a knob that is a factor further; then the state
of weights and optimiser is handed over to the next step, and the last epochs settle: the widths stay, no penalty acts.

With a target a path goes on until its network is within the smallest budget. A step that comes within a budget keeps
its network as soon as that is small enough, and is chosen: a trial of its own tunes it, without the penalty. A step
that goes too far is done again from where it began.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.trial import FrozenTrial
from pydantic import Field

from sizer.methods import method_class
from studies import attempts
from studies.attempts import HANDOVER
from studies.files import Files
from studies.strict import Named

TUNES = "tunes"
"""The user attribute of a trial that tunes a step: the step's number."""
_END, _MOVES = 1.02, 0.98
_IDLE, _LEAP = 0.9, 3
_LEFT, _TRIES = 0.5, 4


class Schedule(Named):
    """How an arm walks: `"path"` in a plan, or a table with this name and any of the other fields.

    Attributes:
        name: `path`.
        each: Epochs of each step but the first under its knob; the first has the arm's epochs.
        settle: Epochs of each step after those, without the penalty.
        factor: How much further the knob is each step, towards a target; three times as far, in its logarithm, as long
            as hardly anything has gone. (Without a target, steps are spread over its range.)
        tune: Epochs that a step is tuned for which comes within a budget of the target; as many as the first has,
            unless given.
    """

    example = '"path", or { name = "path", each = 2, settle = 1 }'

    name: Literal["path"]
    each: int = Field(default=2, ge=1)
    settle: int = Field(default=1, ge=0)
    factor: float = Field(default=1.5, gt=1)
    tune: int | None = Field(default=None, ge=1)

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


@dataclass(frozen=True)
class Sized:
    """A complete trial whose size is known.

    Attributes:
        number: Its number.
        knob: Its knob.
        size: Of its network after the last epoch, as a target counts it.
        tunes: Of a path, the number of the step that it tunes; None of all others.
        collapsed: Whether it ended because a layer was at its last unit.
    """

    number: int
    knob: float
    size: float
    tunes: int | None = None
    collapsed: bool = False


@dataclass(frozen=True)
class Step:
    """What a trial of a path is.

    Attributes:
        knob: The method's knob.
        sizing: Epochs under it.
        settle: Epochs after those, without the penalty.
        limit: The size at which sizing ends, as the target counts it; None without one.
        tunes: The number of the step that it tunes; None of a step.
    """

    knob: float
    sizing: int
    settle: int
    limit: float | None = None
    tunes: int | None = None


def held(budgets: Sequence[float], within: float, walked: Sequence[Sized]) -> tuple[list[Sized], list[Sized]]:
    """The steps of a path towards budgets that hold, and those since the last of them that went too far.

    A step goes too far where a layer comes to its last unit, more than half of the size goes, or the largest budget
    left is undercut by more than it may be. It is done again half as far; then again, but the fourth time it holds
    unless a layer came to its last unit.

    Args:
        budgets: The sizes, rising.
        within: How much smaller than a budget a network may be, as a share.
        walked: The path's complete trials, in order.
    """
    steps: list[Sized] = []
    far: list[Sized] = []
    for each in walked:
        if each.tunes is not None:
            continue
        before = steps[-1].size if steps else math.inf
        ahead = max((budget for budget in budgets if budget < before), default=0)
        least = max(_LEFT * before, (1 - within) * ahead) if steps and len(far) + 1 < _TRIES else 0
        if each.collapsed or each.size < least:
            far.append(each)
        else:
            steps.append(each)
            far = []
    return steps, far


def towards(
    schedule: Schedule,
    epochs: int,
    low: float,
    high: float,
    budgets: Sequence[float],
    within: float,
    walked: Sequence[Sized],
) -> Step:
    """The next trial of a path towards budgets; it begins with what the last step that holds has left.

    Args:
        schedule: How it walks.
        epochs: Of the first step under its knob.
        low, high: Where the knob begins, and how far it may go.
        budgets, within, walked: As `held` takes them.
    """
    steps, far = held(budgets, within, walked)
    tuned = {each.tunes for each in walked} - {None}
    if not steps:
        return Step(low, epochs, schedule.settle, limit=max(budgets))
    last, before = steps[-1], min((each.size for each in steps[:-1]), default=math.inf)
    chosen = any(last.size <= budget < before for budget in budgets)
    if chosen and last.number not in tuned:
        return Step(last.knob, 0, schedule.tune or epochs, tunes=last.number)
    left = [budget for budget in budgets if budget < last.size]
    # Later, a step in which nothing goes is no sign of a small knob: units go one at a time.
    idle = last.size > _IDLE * steps[0].size and len(steps) + len(tuned) == len(walked)
    knob = min(last.knob * schedule.factor ** (_LEAP if idle else 1), high)
    if far:
        knob = math.sqrt(last.knob * far[-1].knob)
    return Step(knob, schedule.each, schedule.settle, limit=max(left, default=None))


def is_over(high: float, budgets: Sequence[float], within: float, walked: Sequence[Sized]) -> bool:
    """Whether a path towards budgets is at its end: within the smallest, and tuned, or where it shrinks no more.

    It is, too, where layers come to their last unit however small the step is.

    Args:
        high: How far the knob may go.
        budgets, within, walked: As `held` takes them.
    """
    steps, far = held(budgets, within, walked)
    if is_collapsing(far):
        return True
    if not steps:
        return False
    if steps[-1].size <= min(budgets):
        return steps[-1].number in {each.tunes for each in walked}
    return is_stuck(high, steps)


def is_collapsing(far: Sequence[Sized]) -> bool:
    """Whether so many steps have gone too far, each half as far as the one before, that layers empty whatever is done.

    Args:
        far: What `held` gives.
    """
    return len(far) >= _TRIES


def is_stuck(high: float, steps: Sequence[Sized]) -> bool:
    """Whether the last two steps were at the end of the knob's range, and hardly differ in size."""
    ends = [each for each in steps[-2:] if each.knob * _END >= high]
    return len(ends) == 2 and ends[1].size > _MOVES * ends[0].size


def knob_at(method: str, low: float, high: float, number: int, steps: int) -> float:
    """The knob of a step: from the low end upward, so that networks shrink; from the high end where they grow."""
    share = number / max(1, steps - 1)
    share = 1 - share if method_class(method).grows else share
    return float(low * (high / low) ** share)


def start_of(files: Files, study_name: str, rows: Iterable[FrozenTrial]) -> str | None:
    """The state that the next step begins with: what the last one left; None before there is one.

    Args:
        files: Of the evaluation.
        study_name: Of the arm's study.
        rows: Its complete trials, as far as they hold.
    """
    for row in sorted(rows, key=lambda row: -row.number):
        folder = f"{attempts.run_of(study_name, row.number)}/{row.user_attrs.get('attempt', '')}"
        if row.user_attrs.get("attempt") and HANDOVER in files.names(folder):
            return f"{folder}/{HANDOVER}"
    return None
