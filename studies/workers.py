"""Ray Tune runs the trials: a Searcher hands out what the driver asks for, a Callback hands back what workers report.

Tune keeps no state that matters: the database says what is done. So its searcher and callback pickle to nothing (the
database's password stays here) and its own folder is thrown away.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from sizer import Epoch
from sizer.errors import InputError
from studies import packing, trainable
from studies.alarm import time_up
from studies.failures import deaths, died, for_memory

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from studies.driver import Driver

# That trials failed is in the database, and was said.
logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)

# A Tuner writes about its trials again and again: cost a trial grows past some hundreds.
TRIALS_A_TUNER = 500
RESTARTS = 3
TIMED_WITHIN = 120.0


class Halt(BaseException):
    """Leaves Tune's loop at once, from within a callback. Tune handles every Exception itself, and waits."""


@dataclass(frozen=True)
class Shares:
    """What a trial may take.

    Attributes:
        cpus: CPUs; torch gets as many threads.
        gpus: The share of a GPU.
        limit: Seconds of training; None is no limit.
    """

    cpus: float
    gpus: float
    limit: float | None = None


def run(
    driver: Driver,
    luggage: Any,
    *,
    shares: Shares,
    concurrency: int,
    check: Callable[[], None],
    packs: Mapping[str, int],
    stopper: Callable[[str, dict[str, Any]], bool] | None = None,
) -> None:
    """Runs trials until the driver has no next one.

    Args:
        driver: Asked for trials and told of reports.
        luggage: Ray's reference to what `studies.luggage.pack` gave.
        shares: Of a trial.
        concurrency: Trials at once.
        check: Called about ten times a second; what it raises ends the run, `Halt` at once.
        packs: arm -> how many of its trials one worker trains at once.
        stopper: As `studies.sweep.run` takes it.

    Raises:
        InputError: A worker found that no trial can be set up.
    """
    resources = {"cpu": shares.cpus, **({"gpu": shares.gpus} if shares.gpus else {})}
    with tempfile.TemporaryDirectory(prefix="sizer-tune-") as folder:
        while driver.left:
            bridge = _Bridge(driver, shares, check, packs)
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(trainable.train, luggage=luggage), resources),
                tune_config=tune.TuneConfig(
                    search_alg=_Search(bridge),
                    num_samples=-1,
                    max_concurrent_trials=concurrency,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    storage_path=folder,
                    callbacks=[_Listener(bridge)],
                    stop=_Epochs(bridge, stopper),
                    failure_config=tune.FailureConfig(max_failures=RESTARTS),
                    verbose=0,
                ),
            )
            with contextlib.suppress(Halt):
                tuner.fit()
            if bridge.halted:
                _end(bridge.trials)
                # Tune's loop gives its workers' places back when it is collected, which matters where Ray stays. It
                # must wait until no exception holds the loop's frames.
                del tuner
                bridge.trials = []
                _let_go(bridge.failure)
                gc.collect()
                raise bridge.failure or Halt


def time_there(luggage: Any) -> Callable[[dict[str, Any], Shares], int]:
    """`studies.packing.timed`, by a worker: where a trial would run.

    Args:
        luggage: As `run` takes it.
    """

    def time_one(like: dict[str, Any], shares: Shares) -> int:
        there = ray.remote(packing.timed).options(num_cpus=shares.cpus, num_gpus=shares.gpus, max_retries=0)
        asked = there.remote(like, shares, luggage)
        try:
            return int(ray.get(asked, timeout=TIMED_WITHIN))
        except ray.exceptions.RayError:  # a worker that died or hangs: of what, its trials say better
            ray.cancel(asked, force=True)
            return 1

    return time_one


class _Bridge:
    """What searcher and callback share: the driver, and the error that ends the run."""

    def __init__(self, driver: Driver, shares: Shares, check: Callable[[], None], packs: Mapping[str, int]) -> None:
        self.driver = driver
        self.packs = packs
        self.shares = shares
        self.check = check
        self.given = 0
        self.trials: list[Trial] = []
        self._heard: dict[int, tuple[float, float]] = {}
        self.failure: Exception | None = None
        self.halted = False

    @contextlib.contextmanager
    def halting(self) -> Any:
        try:
            yield
        except Halt:
            self.halted = True
            raise
        except Exception as error:  # kept, and raised again where Tune cannot swallow it
            self.failure, self.halted = error, True
            raise Halt from None

    def hears(self, trial_id: int, seconds: float | None = None) -> None:
        """Keeps when a worker last gave a sign of life, and how long its trial had trained by then."""
        before = self._heard.get(trial_id, (0.0, 0.0))[1]
        self._heard[trial_id] = (time.monotonic(), before if seconds is None else seconds)

    def is_overdue(self, trial_id: int) -> bool:
        """Whether a worker that died was silent for so long that its alarm has gone off."""
        limit, heard = self.shares.limit, self._heard.get(trial_id)
        return limit is not None and heard is not None and time.monotonic() - heard[0] >= limit - heard[1]

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Search(Searcher):
    """Hands out the driver's next trial."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        with self._bridge.halting():
            if self._bridge.given >= TRIALS_A_TUNER:
                return Searcher.FINISHED
            member = self._bridge.driver.next()
            waiting = member is None and self._bridge.driver.left > 0
            members = [] if member is None else [member]
            while member is not None and len(members) < self._bridge.packs[member["arm"]]:
                other = self._bridge.driver.next(beside=member)
                if other is None:
                    break
                members.append(other)
        if waiting:  # for trials that others take something from; Tune asks again
            return None
        if not members:
            return Searcher.FINISHED
        self._bridge.given += len(members)
        return {"members": members, **asdict(self._bridge.shares)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback tells: it knows the trial."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Epochs(Stopper):
    """Hands epochs to the driver, and ends the trials that are to train no further.

    Tune asks its stoppers first of all, so that an epoch is written here before anyone decides by it. The worker's
    thread stands in its report meanwhile: it takes up no other epoch, and ends there before its actor is used again.
    """

    def __init__(self, bridge: _Bridge, stopper: Callable[[str, dict[str, Any]], bool] | None) -> None:
        self._bridge = bridge
        self._stopper = stopper

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        stay: list[bool] = []
        driver = self._bridge.driver
        with self._bridge.halting():
            for row in result["members"]:
                if "epoch" in row:
                    epoch = Epoch.from_dict(row["epoch"])
                    goes_on = driver.epoch(row["trial_id"], epoch)
                    self._bridge.hears(row["trial_id"], epoch.seconds)
                    if goes_on and self._stopper is not None and self._stopper(trial_id, {**result, **row["epoch"]}):
                        driver.cut(row["trial_id"], "Ray Tune")
                        goes_on = False
                    stay.append(goes_on)
        # A pack goes on for those that do; its worker sees whose runs are gone.
        return bool(stay) and not any(stay)

    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Listener(Callback):
    """Hands ends to the driver, on the driver's main thread: a row is written before the next is handled."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if len(trial.config["members"]) > 1:
            # Then it is split: who of them ended the worker cannot be told.
            trial.max_failures = 1
        for member in trial.config["members"]:
            self._bridge.hears(member["trial_id"])

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._bridge.trials = trials
        with self._bridge.halting():
            self._bridge.check()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        driver = self._bridge.driver
        with self._bridge.halting():
            for row in result["members"]:
                if "note" in row:
                    driver.watch.note(row["note"])
                if row.get("status") == "refused":
                    raise InputError(row["reason"])
                if row.get("status") == trainable.SPLIT:
                    driver.put_back(row["trial_id"])
                elif "status" in row:
                    said = {key: value for key, value in row.items() if key not in {"trial_id", "status", "reason"}}
                    driver.end(row["trial_id"], row["status"], row["reason"], **said)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        with self._bridge.halting():
            for member in self._in_flight(trial):
                self._bridge.driver.cut(member["trial_id"], "Ray Tune")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for member in self._in_flight(trial):
            # Its next worker is told: the alarm's traceback may lie on another machine.
            member["overdue"] = self._bridge.is_overdue(member["trial_id"])
            if not member["overdue"]:
                at = self._bridge.driver.known(member["trial_id"])
                why = "its machine ran out of memory" if for_memory(_deaths(trial)) else "its worker died"
                self._bridge.driver.watch.note(
                    f"{member['arm']} trial {member['number']}: {why}; it goes on after epoch {at}"
                )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        with self._bridge.halting():
            members = self._in_flight(trial)
            for member in members:
                said = _deaths(trial)
                if len(members) > 1:
                    self._bridge.driver.put_back(member["trial_id"])
                    continue
                status, reason = "error", died(said)
                if self._bridge.is_overdue(member["trial_id"]):
                    at = self._bridge.driver.known(member["trial_id"])
                    status, reason = "timeout", time_up(self._bridge.shares.limit, at)
                self._bridge.driver.end(member["trial_id"], status, reason, traceback="\n".join(said))
            if len(members) > 1:
                self._bridge.driver.watch.note(
                    f"{members[0]['arm']}: a pack of {len(members)} lost its worker twice; each trial goes on by itself"
                )

    def _in_flight(self, trial: Trial) -> list[dict[str, Any]]:
        """Those of its members that have not ended."""
        return [member for member in trial.config["members"] if self._bridge.driver.trains(member["trial_id"])]

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _end(trials: list[Trial]) -> None:
    """Ends the workers of trials that train; Ray would let each finish what it was asked last."""
    for trial in trials:
        if trial.temporary_state.ray_actor is not None:
            ray.kill(trial.temporary_state.ray_actor)


def _let_go(error: BaseException | None) -> None:
    """Takes the frames from an exception and from those it came of: each holds its callers. A note keeps the lines."""
    if error is not None:
        error.add_note("".join(traceback.format_exception(error)))
    holding = [error]
    while holding:
        found = holding.pop()
        if found is not None and found.__traceback__ is not None:
            found.__traceback__ = None
            holding += [found.__cause__, found.__context__]


def _deaths(trial: Trial) -> list[str]:
    """What Ray says of each death of a trial's workers."""
    # Not Trial.get_error(): that reads a copy which lags behind.
    return deaths(Path(trial.error_file).read_text(encoding="utf-8", errors="replace")) if trial.error_file else []


def _name(trial: Trial) -> str:
    """Tune's name of a trial and of its folder; by default the whole configuration would stand in it."""
    member = trial.config["members"][0]
    return f"trial-{member['trial_id']}-{trial.trial_id}"
