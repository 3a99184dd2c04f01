"""What trials leave behind: weights that are kept, the state that a path's next step begins with, folders that go.

Every step can be done again: a driver that is killed between two of them leaves runs, and the next one sweeps them up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial

import optuna
from optuna.trial import TrialState

from sizer import Epoch, best_epoch
from studies import attempts, path, search, target, weights
from studies.database import Database
from studies.files import ARTIFACTS, RUNS, Files
from studies.lease import Lease
from studies.plan import Plan
from studies.records import Records


class Keeper:
    """Looks after the files of one evaluation's trials.

    Args:
        plan: The evaluation.
        database: Where it is written.
        lease: Held.
        files: Where the files lie.
        note: Told what is worth a line.
    """

    def __init__(self, plan: Plan, database: Database, lease: Lease, files: Files, note: Callable[[str], None]) -> None:
        self.files = files
        self._plan = plan
        self._database = database
        self._lease = lease
        self._records = Records(database, lease)
        self._note = note
        self._studies: dict[str, optuna.Study] = {}

    def begin(self) -> None:
        """Makes the folders."""
        for folder in (ARTIFACTS, RUNS):
            self.files.make(folder)

    def open(self, arm: str, study: optuna.Study) -> None:
        """An arm has this study; files that no row knows go."""
        self._studies[arm] = study
        self._database.again(partial(weights.drop_unrecorded, self._database, self._lease, study, self.files))

    def run(self, arm: str, number: int) -> str:
        """The name of a trial's run."""
        return attempts.run_of(self._plan.study_name(arm), number)

    def start(self, arm: str) -> str | None:
        """The state that the next step of a path begins with; None where it is the first, or the arm is no path."""
        if self._plan.path(arm) is None:
            return None
        rows = self._studies[arm].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if (wanted := self._plan.target) is not None:
            walked = target.sized(rows, str(self._plan.every[arm].knob_name), wanted)
            steps = {each.number for each in path.held(wanted.budgets, wanted.within, walked)[0]}
            rows = [row for row in rows if row.number in steps]
        return path.start_of(self.files, self._plan.study_name(arm), rows)

    def note(self, arm: str, trial_id: int, epochs: list[Epoch]) -> None:
        """Writes that weights of a complete trial are to be kept, before Optuna is told that it is."""
        found = usable(epochs)
        write = partial(
            weights.note, self._database, self._lease, self._studies[arm], trial_id, found, best_epoch(found)
        )
        self._database.again(write)

    def take(self, arm: str, trial_id: int, number: int, attempt: str, *, complete: bool) -> None:
        """Takes the weights that are worth it from the attempt of an ended trial that was believed."""
        epochs = usable(self._records.epochs(trial_id))
        if not complete or not epochs:
            self._database.again(partial(weights.forget, self._database, self._lease, trial_id))
            return
        study, left = self._studies[arm], weights.Left(self.files, self.run(arm, number), attempt)
        best = best_epoch(epochs)
        keep = partial(weights.keep, self._database, self._lease, study, trial_id, number, epochs, best, left)
        for line in self._database.again(keep):
            self._note(line)

    def clear(self, arm: str, run: str, *, goes_on: bool) -> None:
        """Removes the files of an ended trial; of all ended ones of a path, but for what a next step begins with."""
        needed = (self.start(arm) or "") if goes_on else ""
        own = attempts.left(self.files, [self._plan.study_name(arm)]) if self._plan.path(arm) is not None else []
        for name in {run, *(each for each, _, number in own if self._is_over(arm, number))}:
            if not needed.startswith(f"{name}/"):
                self.files.clear(name)

    def sweep_up(self, goes_on: Callable[[str], bool]) -> None:
        """Removes what ended trials have left: of a driver that was killed, or of a worker that woke up later.

        Args:
            goes_on: Whether an arm has trials that train or have still to begin.
        """
        arms = {self._plan.study_name(arm): arm for arm in self._plan.every}
        for run, study_name, number in attempts.left(self.files, list(arms)):
            arm, row = arms[study_name], None
            with contextlib.suppress(KeyError):
                row = search.row_of(self._studies[arm], number)
            if row is not None and row.state.is_finished() and run == self.run(arm, number):
                attempt, complete = str(row.user_attrs.get("attempt", "")), row.state == TrialState.COMPLETE
                self.take(arm, row._trial_id, number, attempt, complete=complete)
            if row is None or row.state.is_finished():
                self.clear(arm, run, goes_on=goes_on(arm))

    def _is_over(self, arm: str, number: int) -> bool:
        try:
            return search.row_of(self._studies[arm], number).state.is_finished()
        except KeyError:
            return True


def usable(epochs: list[Epoch]) -> list[Epoch]:
    """Those with a validation accuracy that is a number."""
    return [epoch for epoch in epochs if math.isfinite(epoch.val_accuracy)]
