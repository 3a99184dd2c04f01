"""Runs an evaluation from its plan to its last trial, or on from wherever it stands."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sizer.datasets import Data
from sizer.errors import InputError
from studies import checks, luggage, packing, target
from studies.artifacts import elsewhere, files_of, looked_at
from studies.attempts import left as left_over
from studies.database import Database, locate
from studies.driver import Driver, Watch
from studies.lease import Lease
from studies.outages import plain_errors
from studies.plan import Plan, differences
from studies.tables import plans, studies, trials
from studies.target import Target


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
        left: Trials that have not ended yet; 0 when all is done.
        ended: arm -> status -> trials that ended in this run.
        stopped: "" when it ran to its end, else "interrupted", "timeout" or "stopped": somebody asked for it.
        by: Who asked, where it was stopped.
        seconds: How long this run took.
    """

    left: int
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    stopped: str = ""
    by: str = ""
    seconds: float = 0.0

    @property
    def already_done(self) -> bool:
        """Whether there was nothing to do, and so nothing was written."""
        return not self.left and not self.ended


def run(
    plan: Plan,
    database: str | Path | Database,
    *,
    watch: Watch,
    cpus_per_trial: float = 1,
    gpus_per_trial: float = 0,
    concurrency: int | None = None,
    address: str | None = None,
    timeout: float | None = None,
    trial_timeout: float | None = None,
    files: str | None = None,
    pack: packing.Asked = packing.AUTO,
    stopper: Callable[[str, dict[str, Any]], bool] | None = None,
) -> Outcome:
    """Runs what is left of an evaluation; where nothing is left, returns at once and writes nothing.

    Ctrl-C, SIGTERM and `studies.stopping.ask` end it within seconds; like a killed driver they leave rows that the
    next run adopts.

    Args:
        plan: The evaluation.
        database: The path of an SQLite file or an SQLAlchemy URL; made if it is not there.
        watch: Told what happens.
        cpus_per_trial: CPUs, and so threads, of each trial; may be a fraction.
        gpus_per_trial: The share of a GPU of each trial.
        concurrency: Trials at once; as many as fit unless given.
        address: A Ray cluster's; a Ray of one's own on this machine unless given.
        timeout: Seconds after which no more is trained.
        trial_timeout: Seconds that a trial may train, over all its attempts; one that takes longer, or hangs, fails.
        files: The place of the files of this and other evaluations: a folder that every machine sees, or a URI as
            `studies.files.place_of` takes it. Beside the SQLite file unless given.
        pack: How many trials of an arm one worker trains at once, as one program (`sizer.packs`), to the same ends as
            one after the other. `auto` times some steps of each arm and takes what is fastest.
        stopper: A stopper of Ray Tune's, or the like: called after each epoch of each trial, of sizing arms too, with a
            name of the trial and the fields of `sizer.Epoch`. What it ends is PRUNED. (`stop_all` is not called.)

    Raises:
        InputError: The plan differs from the one that its study began with, another driver runs it, or the
            database, the disk, the data or the address will not do.
    """
    _check_shares(cpus_per_trial, gpus_per_trial, concurrency, timeout, trial_timeout)
    pack = packing.checked(plan, pack, trial_timeout)
    began = time.monotonic()
    opened, fresh = locate(database)
    with plain_errors(opened):
        if not fresh and remaining(opened, plan) == 0:
            return Outcome(left=0)
        # Imported late: Ray takes seconds, and "all is done" needs none of it.
        from studies import cluster, workers

        whole = plan.read()
        data = plan.part(whole)
        target.check(plan, data)
        checks.check_starts(plan, data)
        shared = looked_at(opened, None if fresh else plan.name, files)
    joined = cluster.connected(address, cpus_per_trial, gpus_per_trial, shared) if address else nullcontext()
    stop = _Stop(began + timeout if timeout else None, workers.Halt)
    opened.waiting = stop.waiting(watch.note)
    driver: Driver | None = None
    try:
        with (
            plain_errors(opened),
            _ready(opened, joined),
            stop.listening(),
            Lease(opened, plan.name, watch.note) as lease,
            opened.guarded(lease.check),
        ):
            stop.lease = lease
            remaining(opened, plan)
            driver = Driver(plan, opened, lease, watch, files)
            if line := elsewhere(driver.files, files):
                watch.note(line)
            driver.begin(describe(data, plan))
            packed = luggage.pack(plan, whole, data)
            memory = luggage.size(packed)
            del whole, data
            if driver.left:
                # Listening again: Ray takes SIGTERM for itself when it starts.
                with (
                    cluster.connected(address, cpus_per_trial, gpus_per_trial, shared, memory) as fitting,
                    stop.listening(),
                ):
                    carried = cluster.carried(packed)
                    shares = workers.Shares(cpus_per_trial, gpus_per_trial, trial_timeout)
                    at_once = min(concurrency or fitting, fitting)
                    # Another process takes seconds to start; this one takes no device, and runs no code of users.
                    here = address is None and not gpus_per_trial and plan.code("network") is None
                    timed = partial(packing.timed, luggage=packed) if here else workers.time_there(carried)
                    sizes = packing.chosen(plan, pack, driver.to_begin(), at_once, shares, timed)
                    for arm, size in sizes.items() if pack == packing.AUTO else ():
                        if size > 1:
                            watch.note(f"{arm}: a worker trains {size} trials at once (--pack {size})")
                    del packed, timed
                    workers.run(
                        driver,
                        carried,
                        shares=shares,
                        concurrency=at_once,
                        check=stop.check,
                        packs=sizes,
                        stopper=stopper,
                    )
            driver.sweep_up()
    except (workers.Halt, KeyboardInterrupt):
        if fresh and stop.lease is None:  # there may be no tables yet
            raise KeyboardInterrupt from None
        stop.reason = stop.reason or "interrupted"
    with plain_errors(opened):
        left = remaining(opened, plan)
    ended = {arm: dict(counts) for arm, counts in driver.ended.items()} if driver else {}
    return Outcome(left=left, ended=ended, stopped=stop.reason, by=stop.by, seconds=time.monotonic() - began)


@contextlib.contextmanager
def _ready(database: Database, joined: AbstractContextManager[Any]) -> Iterator[None]:
    """Makes the tables once the cluster, if one was named, was joined and looked at: before that nothing is written."""
    with joined:
        database.create()
        yield


def remaining(database: Database, plan: Plan) -> int:
    """How many of the plan's trials have not ended yet, or have ended and left a folder to be cleared.

    Raises:
        InputError: The plan is not the one that its study began with; the line says what differs.
    """
    states = sa.select(studies.c.study_name, trials.c.state, sa.func.count()).join(
        trials, trials.c.study_id == studies.c.study_id
    )
    names = {plan.study_name(arm): arm for arm in plan.every}
    counts: dict[str, Counter[str]] = {arm: Counter() for arm in plan.every}
    with database.engine.connect() as connection:
        before = connection.scalar(sa.select(plans.c.spec).where(plans.c.name == plan.name))
        wanted = states.where(studies.c.study_name.in_(names)).group_by(studies.c.study_name, trials.c.state)
        for name, state, count in connection.execute(wanted):
            counts[names[name]][state] = count
        settled = target.settled(connection, plan.spec(), {plan.study_name(arm): arm for arm in plan.every})
    begun = {arm: sum(count for state, count in states.items() if state != "WAITING") for arm, states in counts.items()}
    if before is not None and any(begun.values()):
        _check_same(plan, json.loads(before), begun)
    to_begin = {arm: 0 if arm in settled else max(0, plan.planned(arm) - begun[arm]) for arm in plan.every}
    asked = {name: arm for name, arm in names.items() if plan.planned(arm)}
    open_trials = sum(counts[arm]["RUNNING"] + to_begin[arm] for arm in asked.values())
    return open_trials or len(left_over(files_of(database, plan.name), list(asked)))


def describe(data: Data, plan: Plan | None = None) -> dict[str, Any]:
    """What the data is, as plain values: enough to rebuild a network for it; and where a network of one's own lies."""
    code = plan.code("network") if plan is not None else None
    return {
        "name": data.name, "task": data.task, "input_shape": list(data.input_shape), "outputs": data.outputs,
        "preprocessing": data.preprocessing,
        **{part: len(getattr(data, f"x_{part}")) for part in ("train", "val", "test")},
        **({"network_folder": code.folder} if code is not None else {}),
    }  # fmt: skip


def _check_same(plan: Plan, before: dict[str, Any], begun: dict[str, int]) -> None:
    changed = differences(before, plan.spec())
    had = before["trials"]
    for kind in ("grid", *(["path"] if plan.target is None else [])):
        if had != plan.trials and any(plan.draws_by(arm) == kind for arm in plan.arms):
            changed.append(f"trials: was {had}, now {plan.trials} (a {kind} has its points from the start)")
    if before.get("target") != plan.spec().get("target") and any(plan.path(arm) for arm in plan.arms):
        was, now = (spec.get("target", "none") for spec in (before, plan.spec()))
        changed.append(f"target: was {_told(was)}, now {_told(now)} (a path has gone by its budgets)")
    points = max(begun[arm] for arm in plan.arms) / (plan.folds or 1)
    if points > plan.trials:
        changed.append(f"trials: {math.ceil(points)} were begun, now {plan.trials}")
    if changed:
        raise InputError(
            f"the plan {plan.name} changed since its study began: {'; '.join(changed)}."
            " Give it another --name, or put it back"
        )


def _told(target: Any) -> str:
    return target if isinstance(target, str) else ", ".join(map(Target(**target).told, Target(**target).budgets))


def _check_shares(
    cpus: float, gpus: float, concurrency: int | None, timeout: float | None, trial_timeout: float | None
) -> None:
    if cpus <= 0:
        raise InputError(f"cpus per trial must be positive, got {cpus:g}")
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise InputError(f"gpus per trial must be a share from 0 to 1, or a whole number, got {gpus:g}")
    if concurrency is not None and concurrency < 1:
        raise InputError(f"concurrency must be 1 or more, got {concurrency}")
    for name, seconds in (("timeout", timeout), ("trial timeout", trial_timeout)):
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise InputError(f"{name} must be a positive number of seconds, got {seconds:g}")


class _Stop:
    """Signals, the clock and who asks from elsewhere, looked at where Tune's loop can be left."""

    def __init__(self, deadline: float | None, leave: type[BaseException]) -> None:
        self.reason = ""
        self.by = ""
        self.lease: Lease | None = None
        self._deadline = deadline
        self._leave = leave

    def check(self) -> None:
        """Raises when a signal came, the time is over or the lease says that somebody asked."""
        if not self.reason and self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "timeout"
        if not self.reason and self.lease is not None and self.lease.asked:
            self.reason, self.by = "stopped", self.lease.asked
        if self.reason:
            raise self._leave

    def waiting(self, note: Callable[[str], None]) -> Callable[[str], None]:
        """What a wait for the database calls: the user hears of each reason once, and can end the wait."""
        said: set[str] = set()

        def hear(line: str) -> None:
            self.check()
            if line not in said:
                said.add(line)
                note(line)

        return hear

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM for as long as the block lasts; a second one leaves wherever it stands."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {kind: signal.signal(kind, self._signal) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _signal(self, kind: int, frame: object) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason = "interrupted"
