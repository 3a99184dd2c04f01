"""The driver's side of a sweep, without Ray: which trial is next, and what is written when a worker says something.

The database alone says what is done. Nothing is kept elsewhere that a new driver would need: it reads the studies,
adopts the RUNNING rows and goes on.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from sizer import Epoch, best_epoch
from studies import artifacts, pruning, search, stages
from studies.agenda import Agenda
from studies.database import Database
from studies.environment import commit
from studies.keeper import Keeper, usable
from studies.lease import Lease
from studies.path import TUNES, Sized
from studies.plan import Plan
from studies.records import EPOCHS, Records
from studies.stages import Ended, Resolved
from studies.target import SETTLED, SIZE, Aim, aims, is_settled, sized

PRUNED = "pruned"
"""Our status of a trial that was ended early, whose state is PRUNED."""


class Watch(Protocol):
    """Who is told what happens, such as the command line's progress bars."""

    def begin(self, totals: dict[str, tuple[int, int]]) -> None:
        """The sweep begins: arm -> (trials done, trials planned)."""

    def epoch(self, arm: str, number: int, epoch: Epoch, of: int) -> None:
        """A trial finished an epoch, of so many; its row is in the database."""

    def expect(self, arm: str, trials: int) -> None:
        """An arm is going to have so many trials, as far as is known now: FLOPs or a target may end it sooner."""

    def trial(self, arm: str, number: int, state: str, status: str, reason: str) -> None:
        """A trial ended: Optuna's state, our status, and why where it is not complete."""

    def note(self, line: str) -> None:
        """Something else worth a line."""


class Driver:
    """Asks, adopts, writes and tells for one evaluation.

    Args:
        plan: The evaluation.
        database: Where it is written; its tables exist.
        lease: Held.
        watch: Told what happens.
        files: The place of the files of many evaluations, as the user named it; beside the database unless given.

    Attributes:
        files: Where those of this one lie.
    """

    def __init__(self, plan: Plan, database: Database, lease: Lease, watch: Watch, files: str | None = None) -> None:
        self.plan = plan
        self.watch = watch
        self.files, self._place = artifacts.settled(database, plan.name, files)
        self._keeper = Keeper(plan, database, lease, self.files, watch.note)
        self.ended: dict[str, Counter[str]] = {arm: Counter() for arm in plan.every}
        self._database = database
        self._lease = lease
        self._records = Records(database, lease)
        self._studies: dict[str, optuna.Study] = {}
        self._agenda = Agenda(plan)
        self._resolved: dict[str, Resolved] = {}
        self._pruned_by: dict[str, str] = {}
        self._epochs: dict[str, int] = {}
        self._shape: tuple[tuple[int, ...], int] = ((), 0)
        self._commit = commit()

    def begin(self, data: dict[str, Any]) -> None:
        """Writes the plan, opens the studies and sees what an earlier driver left.

        Args:
            data: What the data is, for those who read the database.
        """
        spec = self.plan.spec()
        self._keeper.begin()
        self._records.plan(self.plan.name, spec, data, self._place)
        self._shape = tuple(data["input_shape"]), int(data["outputs"])
        for arm in self.plan.every:
            study = self._study(arm)
            given = pruning.pruner_of(spec, arm)
            if given is not None:
                study.pruner = pruning.create(given, self.plan.setting(arm, "epochs"))
                self._pruned_by[arm] = given["name"]
            if study.user_attrs.get("plan") != spec:
                study.set_user_attr("plan", spec)
                study.set_user_attr("arm", arm)
            self._studies[arm] = study
            self._keeper.open(arm, study)
            trials, epochs = self._records.count(study._study_id)
            self._count(arm, epochs)
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            numbers, spent = [row.number for row in waiting], self._records.spent(study._study_id)
            self._agenda.found(arm, trials, numbers, running, spent)
            self._settle(arm)
        self.sweep_up()
        agenda, planned = self._agenda, [arm for arm in self.plan.every if self.plan.planned(arm)]
        self.watch.begin({arm: (agenda.have_ended(arm), agenda.expected(arm)) for arm in planned})

    def sweep_up(self) -> None:
        """Removes what ended trials have left: of a driver that was killed, or of a worker that woke up later."""
        self._keeper.sweep_up(self._agenda.goes_on)

    def _study(self, arm: str) -> optuna.Study:
        make = partial(
            optuna.create_study,
            storage=self._database.storage,
            study_name=self.plan.study_name(arm),
            direction="maximize",
            load_if_exists=True,
        )
        return self._database.again(make)

    @property
    def left(self) -> int:
        """Trials that have still to begin or to be adopted."""
        return self._agenda.left

    def next(self, beside: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The next trial to train, as a worker needs it.

        Args:
            beside: One that was given out and has no worker yet: the next of its arm, on the same data.

        Returns:
            None when every trial has been given out, or when those that are left wait for some that train (`left`);
            beside another, when no other trial can be trained with it.

        Raises:
            InputError: An arm takes something from another of which no trial gave a network.
        """
        while (found := self._agenda.adopt(beside)) is not None:
            member = self._adopt(*found)
            if member is not None:
                return member
        arm = self._agenda.ready(beside)
        if arm is None:
            return None
        trial = self._ask(arm, self._agenda.number(arm), self._agenda.is_queued(arm))
        self._agenda.asked(arm)
        self._records.forget(trial._trial_id)
        self.files.clear(self._keeper.run(arm, trial.number))
        return self._member(arm, trial, known=0)

    def put_back(self, trial_id: int) -> None:
        """A trial in flight is to be taken up by another worker, and not beside others; nothing of it is lost."""
        member = self._agenda.training.pop(trial_id)
        self._agenda.put_back(member["arm"], search.row_of(self._studies[member["arm"]], member["number"]))

    def trains(self, trial_id: int) -> bool:
        """Whether a trial is in flight: was given out, and has not ended."""
        return trial_id in self._agenda.training

    def to_begin(self) -> dict[str, int]:
        """arm -> trials that have still to begin or to be adopted."""
        return self._agenda.to_begin()

    def _adopt(self, arm: str, row: optuna.trial.FrozenTrial) -> dict[str, Any] | None:
        """Takes over what an earlier driver left RUNNING; None where it is, or was, to be pruned: then it ends here.

        Successive halving lets a trial pass that it has ranked. One that was killed between that and the first word of
        its end goes on, to the next rung at most.
        """
        trial = search.adopt(self.plan, arm, self._studies[arm], row, self._open(arm))
        trial_id, known = trial._trial_id, self._known(trial._trial_id)
        member = self._member(arm, trial, known)
        reason = str(row.user_attrs["reason"]) if row.user_attrs.get("status") == PRUNED else ""
        if known:
            last = self._records.epochs(trial_id)[known - 1]
            reason = reason or self._prunes(member, last)
        if not reason:
            return member
        self.end(trial_id, PRUNED, reason)
        return None

    def _ask(self, arm: str, number: int, queued: bool) -> optuna.Trial:
        """Asks for trial `number`, once: where the answer was lost, the row may stand already."""
        study, resolved = self._studies[arm], self._open(arm)
        asked = False

        def ask() -> optuna.Trial:
            nonlocal asked
            rows = study.get_trials(deepcopy=False) if asked else []
            row = next((row for row in rows if row.number == number), None)
            asked = True
            if row is not None and row.state == TrialState.RUNNING:
                return search.adopt(self.plan, arm, study, row, resolved)
            return search.ask(self.plan, arm, study, number, queued or row is not None, resolved)

        return self._database.again(ask)

    def _open(self, arm: str) -> Resolved:
        """What an arm takes from others; the database alone says it, so that a new driver finds the same."""
        if arm not in self._resolved or self.plan.every[arm].stage == "knob":
            self._resolved[arm] = stages.resolve(self.plan, arm, self._ended, self._shape)
        return self._resolved[arm]

    def _ended(self, arm: str) -> list[Ended]:
        rows = self._studies[arm].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        found = [(row, _best(self._records.epochs(row._trial_id))) for row in rows]
        return [
            Ended(row.number, row.params, best, row.user_attrs.get("status") == "collapsed")
            for row, best in found
            if best is not None
        ]

    def epoch(self, trial_id: int, epoch: Epoch) -> bool:
        """A worker finished an epoch: it is committed when this returns. The watch hears of it once.

        Returns:
            Whether the trial is to train on. If not, it was pruned, and has ended.
        """
        member = self._agenda.training[trial_id]
        self._records.epoch(trial_id, epoch)
        if epoch.epoch > member["known"]:
            member["known"] = epoch.epoch
            self.watch.epoch(member["arm"], member["number"], epoch, member["epochs"])
        reason = self._prunes(member, epoch)
        if reason:
            self.end(trial_id, PRUNED, reason)
        return not reason

    def cut(self, trial_id: int, by: str) -> None:
        """Training of a trial was stopped from outside; one that has not ended is PRUNED by that."""
        if member := self._agenda.training.get(trial_id):
            epochs = self._records.epochs(trial_id)
            reason = _cut_short(by, member, epochs[-1]) if epochs else f"{by}: before its first epoch"
            self.end(trial_id, PRUNED, reason)

    def _prunes(self, member: dict[str, Any], epoch: Epoch) -> str:
        """Why the arm's pruner ends a trial after an epoch; empty where it does not, or nothing is left to be saved."""
        name = self._pruned_by.get(member["arm"])
        if name is None or epoch.epoch >= member["epochs"]:
            return ""
        study, trial_id = self._studies[member["arm"]], member["trial_id"]
        # As Trial.should_prune does; a Trial would have the sampler draw first.
        prunes = study.pruner.prune(study, self._database.storage.get_trial(trial_id))
        return _cut_short(name, member, epoch) if prunes else ""

    def end(self, trial_id: int, status: str, reason: str, **more: Any) -> None:
        """A trial ended: its best epoch, architecture and weights are written and Optuna is told.

        One that was pruned is told so with its last value, and its weights are not kept. `more` is `device`,
        `environment`, `traceback`, `final_latency_ms` and the method's `notes` of the run, as far as there are any, and
        the `attempt` that says so: its weights are kept.

        Every step can be done again, so that a driver killed between two of them does no harm: while the row is
        RUNNING it is adopted, and afterwards the run's folder says that its weights are still to be looked at.
        """
        member = self._agenda.training.pop(trial_id)
        arm, number = member["arm"], member["number"]
        epochs = self._records.epochs(trial_id)
        best = _best(epochs)
        complete = best is not None and status in {"complete", "collapsed"}
        found = {
            "best_epoch": best.epoch, "test_accuracy": best.test_accuracy, "parameters": best.parameters,
            "flops": best.flops, "widths": best.widths,
        } if best else {}  # fmt: skip
        # Status and reason first: the next driver goes by them where this one is killed before Optuna is told.
        said = {"reason": reason, "status": status, "commit": self._commit, **more}
        self._records.attributes(trial_id, {**{key: value for key, value in said.items() if value}, **found})
        if complete:
            self._keeper.note(arm, trial_id, epochs)
        self._records.architecture(trial_id, best.widths if best else {})
        value = best.val_accuracy if best and complete else None
        if epochs and (self.plan.target is not None or self.plan.draws_by(arm) == SIZE):
            last = {"final_parameters": epochs[-1].parameters, "final_flops": epochs[-1].flops}
            self._records.attributes(trial_id, last)
        state = search.tell(self._studies[arm], number, value, pruned=status == PRUNED)
        self._agenda.spend(arm, epochs[-1].training_flops if epochs else 0.0)
        self._settle(arm)
        self._count(arm, len(epochs))
        attempt = str(more.get("attempt") or "")
        self._keeper.take(arm, trial_id, number, attempt, complete=state == TrialState.COMPLETE)
        self._keeper.clear(arm, member["run"], goes_on=self._agenda.goes_on(arm))
        self.ended[arm][status] += 1
        self.watch.expect(arm, self._agenda.expected(arm))
        self.watch.trial(arm, number, state.name, status, reason)

    def aims(self, arm: str) -> list[Aim]:
        """How far an arm is with each budget of the plan's target; empty where it does not look for sizes."""
        wanted, found = self.plan.target, self.plan.every[arm]
        if wanted is None or arm not in self.plan.aiming:
            return []
        return aims(wanted, str(found.knob_name), self.plan.reach(found), self._sized(arm), self.plan.path(arm))

    def _sized(self, arm: str) -> list[Sized]:
        rows = self._studies[arm].get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sized(rows, str(self.plan.every[arm].knob_name), self.plan.target) if self.plan.target else []

    def _settle(self, arm: str) -> None:
        """Sees whether an arm asks for no more trials.

        Its target's networks are there, or cannot be had, or it has spent its FLOPs.
        """
        found, plan = self.aims(arm), self.plan
        sized = False
        if found and plan.target is not None:
            sized = is_settled(plan.target, plan.reach(plan.every[arm]), self._sized(arm), found, plan.path(arm))
        done = "max_training_flops" if self._agenda.has_spent_all(arm) else "target" if sized else None
        study, said = self._studies[arm], plan.spec()[done] if done else None
        if study.user_attrs.get(SETTLED) != said:
            self._database.storage.set_study_user_attr(study._study_id, SETTLED, said)
        begun, planned = self._agenda.begun(arm), plan.planned(arm)
        if done and not self._agenda.is_settled(arm) and begun < planned:
            why = "say all about its target" if done == "target" else "have spent its training FLOPs"
            self.watch.note(f"{arm}: {begun} trials of {planned} {why}")
        self._agenda.settle(arm, done is not None)

    def known(self, trial_id: int) -> int:
        """The last epoch of a trial in flight that is written."""
        return int(self._agenda.training[trial_id]["known"])

    def _member(self, arm: str, trial: optuna.Trial, known: int) -> dict[str, Any]:
        plan, point = self.plan, search.point(self.plan, arm, trial.params, self._open(arm))
        fold, wanted = plan.fold(arm, trial.number), plan.target
        seed = plan.seed_of(arm, trial.number)
        step = search.step_of(plan, arm, trial.number, self._studies[arm])
        sizing, settle = (int(plan.setting(arm, "epochs")), 0) if step is None else (step.sizing, step.settle)
        said = {"seed": seed, "learning_rate": point.learning_rate, **({} if fold is None else {"fold": fold})}
        if step is not None and step.tunes is not None:
            said[TUNES] = step.tunes
        for key, value in said.items():
            if trial.user_attrs.get(key) != value:
                trial.set_user_attr(key, value)
        member = {
            "arm": arm, "number": trial.number, "trial_id": trial._trial_id, "seed": seed, "known": known,
            "method": plan.every[arm].method, "knob": point.knob, "settings": dict(plan.every[arm].settings),
            "network": plan.network, "widths": point.widths, "weight_decay": point.weight_decay,
            "fold": fold or 0, "learning_rate": point.learning_rate,
            "files": self.files.place, "run": self._keeper.run(arm, trial.number),
            **{field: plan.setting(arm, field) for field in ("batch_size", "optimizer")},
            "epochs": sizing + settle, "settle": settle,
            "limit": {f"max_{wanted.kind}": step.limit} if wanted and step is not None and step.limit else {},
            "timed": wanted.model_dump() if wanted and wanted.latency and plan.draws_by(arm) == SIZE else None,
            "hands_over": step is not None and step.tunes is None, "start": self._keeper.start(arm),
            "precision": plan.setting(arm, "precision") or "float32",
        }  # fmt: skip
        # Only here: a worker that wakes up when its trial has ended must not make it again.
        self.files.make(member["run"])
        self._agenda.training[trial._trial_id] = member
        return member

    def _known(self, trial_id: int) -> int:
        """The last epoch without a gap before it."""
        written = [epoch.epoch for epoch in self._records.epochs(trial_id)]
        return next((at for at, epoch in enumerate(written) if epoch != at + 1), len(written))

    def _count(self, arm: str, epochs: int) -> None:
        """Says for `sizer status`, which would have to count them, how many epochs ended trials have."""
        self._epochs[arm] = self._epochs.get(arm, 0) + epochs
        self._database.storage.set_study_user_attr(self._studies[arm]._study_id, EPOCHS, self._epochs[arm])


def _cut_short(by: str, member: dict[str, Any], epoch: Epoch) -> str:
    return f"{by}: {epoch.val_accuracy:.3f} after epoch {epoch.epoch} of {member['epochs']}"


def _best(epochs: list[Epoch]) -> Epoch | None:
    found = usable(epochs)
    return best_epoch(found) if found else None
