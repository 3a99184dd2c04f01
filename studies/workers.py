"""Ray Tune runs the trials: a Searcher hands out what the driver asks for, a Callback hands back what workers report.

Tune keeps no state that matters: the database says what is done. So its searcher and callback pickle to nothing (the
database's password stays here) and its own folder is thrown away.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from sizer import Epoch
from sizer.errors import InputError
from studies import trainable

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from studies.driver import Driver

# A Tuner writes about its trials again and again: cost a trial grows past some hundreds.
TRIALS_A_TUNER = 500
RESTARTS = 3


class Halt(BaseException):
    """Leaves Tune's loop at once, from within a callback. Tune handles every Exception itself, and waits."""


def run(
    driver: Driver,
    *,
    cpus: float,
    gpus: float,
    concurrency: int,
    check: Callable[[], None],
    stopper: Callable[[str, dict[str, Any]], bool] | None = None,
) -> None:
    """Runs trials until the driver has no next one.

    Args:
        driver: Asked for trials and told of reports.
        cpus: CPUs a trial; torch gets as many threads.
        gpus: The share of a GPU a trial.
        concurrency: Trials at once.
        check: Called about ten times a second; what it raises ends the run, `Halt` at once.
        stopper: As `studies.sweep.run` takes it.

    Raises:
        InputError: A worker found that no trial can be set up.
    """
    resources = {"cpu": cpus, **({"gpu": gpus} if gpus else {})}
    with tempfile.TemporaryDirectory(prefix="sizer-tune-") as folder:
        while driver.left:
            bridge = _Bridge(driver, {"cpus": cpus, "gpus": gpus}, check)
            tuner = tune.Tuner(
                tune.with_resources(trainable.train, resources),
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
                # Tune's loop gives its workers' places back when it is collected; Ray then ends the workers. That
                # matters where Ray stays, and must wait until no exception holds the loop's frames.
                del tuner
                gc.collect()
                raise bridge.failure or Halt


class _Bridge:
    """What searcher and callback share: the driver, and the error that ends the run."""

    def __init__(self, driver: Driver, shares: dict[str, float], check: Callable[[], None]) -> None:
        self.driver = driver
        self.shares = shares
        self.check = check
        self.given = 0
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
        if waiting:  # for trials that others take something from; Tune asks again
            return None
        if member is None:
            return Searcher.FINISHED
        self._bridge.given += 1
        return {"members": [member], **self._bridge.shares}

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
        stopped = False
        with self._bridge.halting():
            for row in result["members"]:
                if "epoch" in row:
                    goes_on = self._bridge.driver.epoch(row["trial_id"], Epoch.from_dict(row["epoch"]))
                    asked = self._stopper is not None and self._stopper(trial_id, {**result, **row["epoch"]})
                    stopped = stopped or not goes_on or asked
        return stopped

    def stop_all(self) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Listener(Callback):
    """Hands ends to the driver, on the driver's main thread: a row is written before the next is handled."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        with self._bridge.halting():
            self._bridge.check()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        driver = self._bridge.driver
        with self._bridge.halting():
            for row in result["members"]:
                if row.get("status") == "refused":
                    raise InputError(row["reason"])
                if "status" in row:
                    said = {key: row.get(key) for key in ("device", "traceback", "notes")}
                    driver.end(row["trial_id"], row["status"], row["reason"], **said)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        with self._bridge.halting():
            for member in trial.config["members"]:
                self._bridge.driver.cut(member["trial_id"], "Ray Tune")

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        for member in trial.config["members"]:
            at = self._bridge.driver.known(member["trial_id"])
            self._bridge.driver.watch.note(
                f"{member['arm']} trial {member['number']}: its worker died; it goes on after epoch {at}"
            )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        with self._bridge.halting():
            for member in trial.config["members"]:
                reason = f"its worker died {RESTARTS + 1} times"
                self._bridge.driver.end(member["trial_id"], "error", reason, traceback=str(trial.get_error() or ""))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _name(trial: Trial) -> str:
    """Tune's name of a trial and of its folder; by default the whole configuration would stand in it."""
    member = trial.config["members"][0]
    return f"trial-{member['trial_id']}-{trial.trial_id}"
