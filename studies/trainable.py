"""What runs in a worker: one trial, trained with `sizer.fit`, an epoch reported at a time. Workers hold no database.

The attempt's folder is the only checkpoint (see `studies.attempts`): `fit` leaves its state there after every epoch,
and the next attempt begins with it, whether the worker died (Tune starts the same trial again) or the driver did (the
next one adopts the row). Tune's own checkpoints would copy the same files once more, and would be unknown to a new
driver.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from ray import tune

import sizer
from sizer import Epoch, methods
from sizer.datasets import Data
from studies import attempts, files, plan
from studies.alarm import Alarm, TimeUpError, time_up
from studies.attempts import Attempt
from studies.failures import failed
from studies.luggage import Luggage, code_of, data_of


class StoppedError(BaseException):
    """The trial was ended from outside, such as by a pruner. No `except Exception` of a user's code may catch it."""


def train(config: dict[str, Any], luggage: Luggage) -> None:
    """The trainable that Ray Tune calls.

    Args:
        config: `members`, a list of one trial as `studies.driver.Driver.next` describes it, `cpus`, `gpus`, and
            `limit`, the seconds that a trial may train, or None.
        luggage: What `studies.luggage.pack` gave.

    Reports `{"members": [...]}`: an `epoch` while it trains, and at the end a `status`: complete, collapsed,
    diverged, timeout, error (the user's code or memory failed; `traceback` says where) or refused (the trial cannot
    be set up here at all, so that no other could either). Each names its `attempt`. A failure is reported, never
    raised: Tune would try it again.
    """
    for member in config["members"]:
        # Ray tells OpenMP one thread for a task of one CPU; torch is told here, in the thread that trains.
        torch.set_num_threads(max(1, int(config["cpus"])))
        device = "cuda" if config["gpus"] > 0 and torch.cuda.is_available() else "cpu"
        name = {"trial_id": member["trial_id"], "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
        try:
            with attempts.taken_up(files.at(member["files"]), member["run"]) as attempt:
                name["attempt"] = attempt.name
                end = _end(member, attempt, name, device, luggage, config["limit"])
        except StoppedError:
            raise SystemExit from None
        # Whatever the user's code does, sys.exit too; reported, as Tune would try what is raised again.
        except (Exception, SystemExit) as error:
            status, reason = failed(error)
            end = {"status": status, "reason": reason, "traceback": traceback.format_exc()}
        if device == "cuda":
            torch.cuda.empty_cache()
        tune.report({"members": [{**name, **end}]})


def build(member: dict[str, Any], data: Data, luggage: Luggage) -> torch.nn.Module:
    """The network of a trial, its weights drawn from the trial's seed."""
    torch.manual_seed(member["seed"])
    network = code_of(luggage) or member["network"]
    return plan.build(network, data.input_shape, data.outputs, member["widths"])


def _tell(row: dict[str, Any]) -> None:
    """Reports an epoch, and waits until the driver has written it."""
    try:
        tune.report({"members": [row]})
    except SystemExit:  # how Tune ends a thread
        raise StoppedError from None


def _end(
    member: dict[str, Any], attempt: Attempt, name: dict[str, Any], device: str, luggage: Luggage, limit: float | None
) -> dict[str, Any]:
    """Trains the trial to its end; what is reported of that."""
    over = attempt.overdue or member.get("overdue") or (limit is not None and attempt.seconds >= limit)
    if limit is not None and over and attempt.epochs < member["epochs"]:
        return {"status": "timeout", "reason": time_up(limit, attempt.epochs), "traceback": attempt.overdue}
    try:
        with Alarm(limit, attempt.folder / attempts.TRACEBACK) as alarm:
            return _fit(member, attempt, name, device, luggage, alarm)
    except TimeUpError as error:
        return {"status": "timeout", "reason": str(error)}


def _fit(
    member: dict[str, Any], attempt: Attempt, name: dict[str, Any], device: str, luggage: Luggage, alarm: Alarm
) -> dict[str, Any]:
    data = data_of(luggage, member["fold"])
    decay = {"weight_decay": member["weight_decay"]} if member["weight_decay"] else {}
    method = methods.create(member["method"], member["knob"], **member["settings"], **decay)
    # What the driver has already is not sent again, unless this attempt had to begin before it.
    known = min(member["known"], attempt.epochs)

    def report(epoch: Epoch) -> None:
        # The clock stands while files are put and the driver is waited for.
        alarm.off()
        attempt.keep()
        if epoch.epoch > known:
            _tell({**name, "epoch": epoch.to_dict()})
        if epoch.epoch < member["epochs"]:
            if alarm.limit is not None and epoch.seconds >= alarm.limit:
                raise TimeUpError(time_up(alarm.limit, epoch.epoch))
            alarm.set(epoch.seconds)

    if attempt.epochs < member["epochs"]:
        alarm.set(attempt.seconds)
    run = sizer.fit(
        build(member, data, luggage), data, method,
        epochs=member["epochs"], batch_size=member["batch_size"], learning_rate=member["learning_rate"],
        optimizer=member["optimizer"], seed=member["seed"], device=device,
        folder=attempt.folder, on_epoch=report,
    )  # fmt: skip
    return {"status": run.status, "reason": run.reason, "notes": run.net.notes}
