"""Which trial of an evaluation comes next: what of each arm is still to be asked for, waits, trains or has ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from studies.arms import affordable
from studies.plan import Plan


@dataclass
class _Arm:
    """Where an arm stands.

    Attributes:
        asked: Trials that were asked for; those that wait are not among them.
        waiting: Numbers of the trials that stand in the database and wait to be asked for.
        spent: FLOPs of training of those that have ended.
        is_settled: No more are asked for: a target's networks are there, or the FLOPs are spent.
    """

    asked: int = 0
    waiting: list[int] = field(default_factory=list)
    spent: float = 0.0
    is_settled: bool = False


class Agenda:
    """Counts for the driver; it reads and writes no database.

    Args:
        plan: The evaluation.

    Attributes:
        training: Trial id -> what its worker was given, of the trials in flight.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arms = {arm: _Arm() for arm in plan.every}
        self._adoptable: list[tuple[str, FrozenTrial]] = []
        self._alone: set[int] = set()
        self.training: dict[int, dict[str, Any]] = {}

    def found(
        self, arm: str, trials: int, waiting: Sequence[int], running: Sequence[FrozenTrial], spent: float
    ) -> None:
        """What an earlier driver has left of an arm.

        Args:
            arm: The arm.
            trials: All of its rows.
            waiting: Numbers of those that wait.
            running: Those to adopt.
            spent: FLOPs of training of those that have ended.
        """
        self._arms[arm] = _Arm(trials - len(waiting), list(waiting), spent)
        if self._plan.planned(arm):
            self._adoptable += [(arm, row) for row in running]

    @property
    def left(self) -> int:
        """Trials that have still to begin or to be adopted."""
        return sum(self.to_begin().values())

    def to_begin(self) -> dict[str, int]:
        """arm -> trials that have still to begin or to be adopted."""
        return {arm: self._to_ask(arm) + sum(arm == other for other, _ in self._adoptable) for arm in self._arms}

    def goes_on(self, arm: str) -> bool:
        """Whether an arm has trials that train, or have still to begin or to be adopted; one left out may."""
        return not self._plan.planned(arm) or bool(self.to_begin()[arm]) or bool(self._in_flight()[arm])

    def adopt(self, beside: dict[str, Any] | None) -> tuple[str, FrozenTrial] | None:
        """Takes the next row to adopt, with its arm; beside another trial, one that may train with it."""
        for at, (arm, row) in enumerate(self._adoptable):
            if beside is None or (
                arm == beside["arm"]
                and not self._alone & {row._trial_id, beside["trial_id"]}
                and (self._plan.fold(arm, row.number) or 0) == beside["fold"]
            ):
                return self._adoptable.pop(at)
        return None

    def ready(self, beside: dict[str, Any] | None) -> str | None:
        """The arm whose next trial is to be asked for; beside another trial, only where the two may train together."""
        ready = [arm for arm in self._arms if self._to_ask(arm) and self._is_ready(arm)]
        if beside is not None:
            if beside["trial_id"] in self._alone:
                return None
            fold = self._plan.fold(beside["arm"], self.number(beside["arm"])) or 0
            ready = [arm for arm in ready if arm == beside["arm"] and fold == beside["fold"]]
        # The arm that is furthest behind: all arms advance together.
        return min(ready, key=lambda arm: self._arms[arm].asked, default=None)

    def number(self, arm: str) -> int:
        """The number that the next trial of an arm will have."""
        return self._arms[arm].waiting[0] if self._arms[arm].waiting else self._arms[arm].asked

    def is_queued(self, arm: str) -> bool:
        """Whether the next trial of an arm stands in the database already."""
        return bool(self._arms[arm].waiting)

    def asked(self, arm: str) -> None:
        """The next trial of an arm was asked for."""
        del self._arms[arm].waiting[:1]
        self._arms[arm].asked += 1

    def put_back(self, arm: str, row: FrozenTrial) -> None:
        """A trial that was in flight is to be adopted again, and not beside others."""
        self._adoptable.append((arm, row))
        self._alone.add(row._trial_id)

    def spend(self, arm: str, flops: float) -> None:
        """A trial of an arm ended, after so many FLOPs of training."""
        self._arms[arm].spent += flops

    def settle(self, arm: str, is_settled: bool) -> None:
        """An arm asks for no more trials, or does so again."""
        self._arms[arm].is_settled = is_settled

    def is_settled(self, arm: str) -> bool:
        """Whether an arm asks for no more trials than it has, although more were planned."""
        return self._arms[arm].is_settled

    def begun(self, arm: str) -> int:
        """Trials of an arm that were asked for, ended or not."""
        return self._arms[arm].asked

    def have_ended(self, arm: str) -> int:
        """Trials of an arm that have ended."""
        return self._arms[arm].asked - self._in_flight()[arm] - sum(arm == other for other, _ in self._adoptable)

    def has_spent_all(self, arm: str) -> bool:
        """Whether an arm's ended trials have taken all FLOPs that it may spend."""
        return self._arms[arm].spent >= self._most(arm)

    def expected(self, arm: str) -> int:
        """How many trials an arm is going to have, as far as is known."""
        at, planned, most = self._arms[arm], self._plan.planned(arm), self._most(arm)
        if at.is_settled:
            return at.asked
        if math.isinf(most) or not at.spent:
            return planned
        return min(planned, affordable(most, self.have_ended(arm), at.spent, at.asked))

    def _in_flight(self) -> Counter[str]:
        return Counter(member["arm"] for member in self.training.values())

    def _to_ask(self, arm: str) -> int:
        at = self._arms[arm]
        return 0 if at.is_settled else max(0, self._plan.planned(arm) - at.asked)

    def _is_ready(self, arm: str) -> bool:
        """Whether all that an arm takes from others, or a search for a knob from its own trials so far, is there."""
        found, training = self._plan.every[arm], self._in_flight()
        if any(self._to_ask(other) or other in training for other in found.waits_for(arm)):
            return False
        if training[arm] >= (self._plan.max_concurrent_trials or math.inf):
            return False
        if arm in training and self._promised(arm) >= self._most(arm):
            return False
        # One at a time: each follows from the ones before it.
        return (found.stage != "knob" and self._plan.path(arm) is None) or arm not in training

    def _most(self, arm: str) -> float:
        """The FLOPs of training that an arm may spend; a stage may spend what it needs."""
        most = self._plan.max_training_flops
        return math.inf if most is None or self._plan.every[arm].stage else most

    def _promised(self, arm: str) -> float:
        """What an arm has spent once the trials that train have cost as much as those that have ended, on average."""
        ended = self.have_ended(arm)
        return self._arms[arm].spent * (1 + self._in_flight()[arm] / ended) if ended else 0.0
