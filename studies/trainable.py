"""What runs in a worker: a trial, trained with `sizer.fit`, or several as a pack. Workers hold no database.

The attempt's folder is the only checkpoint (see `studies.attempts`): `fit` leaves its state there after every epoch,
and the next attempt begins with it, whether the worker died (Tune starts the same trial again) or the driver did (the
next one adopts the row). Tune's own checkpoints would copy the same files once more, and would be unknown to a new
driver.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import Any

import torch
from ray import tune

import sizer
from sizer import Epoch, Run, methods, packs
from sizer.datasets import Data
from sizer.methods import Method
from sizer.training import STATE
from studies import attempts, files, plan
from studies.alarm import Alarm, TimeUpError, time_up
from studies.attempts import Attempt
from studies.environment import environment
from studies.failures import failed
from studies.luggage import Luggage, code_of, data_of
from studies.target import Target, size_of

SPLIT = "split"
"""The status of a trial that is to go on by itself."""


class StoppedError(BaseException):
    """The trial was ended from outside, such as by a pruner. No `except Exception` of a user's code may catch it."""


def train(config: dict[str, Any], luggage: Luggage) -> None:
    """The trainable that Ray Tune calls.

    Args:
        config: `members`, trials as `studies.driver.Driver.next` describes them, of one arm and on the same data,
            `cpus`, `gpus`, and `limit`, the seconds that a trial may train (where it is the only one), or None.
        luggage: What `studies.luggage.pack` gave.

    Reports `{"members": [...]}`: an `epoch` of each while it trains, and at its end a `status`: complete, collapsed,
    diverged, timeout, error (the user's code or memory failed; `traceback` says where), refused (the trial cannot
    be set up here at all, so that no other could either), or split: it is to go on by itself, as what failed was the
    pack. Each names its `attempt`. A failure is reported, never raised: Tune would try it again. A `note` is worth a
    line.
    """
    # Ray tells OpenMP one thread for a task of one CPU; torch is told here, in the thread that trains.
    torch.set_num_threads(max(1, int(config["cpus"])))
    device = "cuda" if config["gpus"] > 0 and torch.cuda.is_available() else "cpu"
    members = config["members"]
    if len(members) == 1:
        _train_one(members[0], device, luggage, config["limit"])
    else:
        _train_pack(members, device, luggage)


def _train_one(member: dict[str, Any], device: str, luggage: Luggage, limit: float | None) -> None:
    name = _named(member, device)
    try:
        with attempts.taken_up(files.at(member["files"]), member["run"]) as attempt:
            name["attempt"] = attempt.name
            end = _end(member, attempt, name, device, luggage, limit)
    except StoppedError:
        raise SystemExit from None
    # Whatever the user's code does, sys.exit too; reported, as Tune would try what is raised again.
    except (Exception, SystemExit) as error:
        end = _failed(error)
    if device == "cuda":
        torch.cuda.empty_cache()
    tune.report({"members": [{**name, **end}]})


def _train_pack(members: list[dict[str, Any]], device: str, luggage: Luggage) -> None:
    pack = _Pack(device)
    try:
        with contextlib.ExitStack() as stack:
            for member in members:
                pack.takes(member, stack)
            pack.train(luggage)
    except StoppedError:
        raise SystemExit from None
    except (Exception, SystemExit) as error:
        why = (
            f"{members[0]['arm']}: a pack of {len(members)} trials failed ({failed(error)[1]}); each goes on by itself"
        )
        left = [{**name, "status": SPLIT} for name in pack.names.values()]
        pack.rows += [{**left[0], "note": why}, *left[1:]] if left else []
    if device == "cuda":
        torch.cuda.empty_cache()
    if pack.rows:
        tune.report({"members": pack.rows})


class _Pack:
    """The trials that a worker trains at once.

    Attributes:
        names: trial_id -> how those that have not ended name themselves in a report.
        rows: What is reported next.
    """

    def __init__(self, device: str) -> None:
        self.names: dict[int, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self._device = device
        self._seats: list[tuple[dict[str, Any], Attempt]] = []
        self._members: dict[packs.Member, int] = {}

    def takes(self, member: dict[str, Any], stack: contextlib.ExitStack) -> None:
        """A trial takes part from where its earlier attempts ended; one whose run is gone has ended."""
        place = files.at(member["files"])
        if not place.has(member["run"]):
            return
        name = _named(member, self._device)
        try:
            attempt = stack.enter_context(attempts.taken_up(place, member["run"]))
        except (Exception, SystemExit) as error:
            self.rows.append({**name, **_failed(error)})
            return
        self.names[member["trial_id"]] = {**name, "attempt": attempt.name}
        self._seats.append((member, attempt))

    def train(self, luggage: Luggage) -> None:
        """Trains them to their ends; all rows but the last ones are reported by then."""
        if not self._seats:
            return
        first = self._seats[0][0]
        data = data_of(luggage, first["fold"])
        self._members = {
            self._seat(member, attempt, data, luggage): member["trial_id"] for member, attempt in self._seats
        }
        packs.fit(
            list(self._members), data, epochs=first["epochs"], batch_size=first["batch_size"],
            optimizer=first["optimizer"], precision=first["precision"], device=self._device, after_epoch=self._report,
            note=lambda line: self.rows.append({"trial_id": first["trial_id"], "note": f"{first['arm']}: {line}"}),
        )  # fmt: skip

    def _seat(self, member: dict[str, Any], attempt: Attempt, data: Data, luggage: Luggage) -> packs.Member:
        name, known = self.names[member["trial_id"]], min(member["known"], attempt.epochs)

        def epoch(done: Epoch) -> None:
            attempt.keep()
            if done.epoch > known:
                self.rows.append({**name, "epoch": done.to_dict()})

        def end(run: Run | Exception) -> None:
            del self.names[member["trial_id"]]
            told = _failed(run) if isinstance(run, Exception) else _ended(run, member, data)
            beside = {**told["environment"], "pack": str(len(self._seats))}
            self.rows.append({**name, **told, "environment": beside})

        return packs.Member(
            build=lambda: build(member, data, luggage), method=_method(member), seed=member["seed"],
            learning_rate=member["learning_rate"], folder=attempt.folder, on_epoch=epoch, on_end=end,
        )  # fmt: skip

    def _report(self) -> list[packs.Member]:
        """Reports an epoch of all, and waits until the driver has written it; gives those that it has ended."""
        rows, self.rows = self.rows, []
        if rows:
            _tell(rows)
        gone = {member["trial_id"] for member, _ in self._seats if not files.at(member["files"]).has(member["run"])}
        for trial_id in gone:
            self.names.pop(trial_id, None)
        return [member for member, trial_id in self._members.items() if trial_id in gone]


def _named(member: dict[str, Any], device: str) -> dict[str, Any]:
    return {"trial_id": member["trial_id"], "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}


def _failed(error: BaseException) -> dict[str, Any]:
    status, reason = failed(error)
    told = "".join(traceback.format_exception(error))
    return {"status": status, "reason": reason, "traceback": told, "environment": environment()}


def _ended(run: Run, member: dict[str, Any], data: Data) -> dict[str, Any]:
    said = {"status": run.status, "reason": run.reason, "notes": run.net.notes, "environment": environment()}
    if member["timed"] is None:
        return said
    return {**said, "final_latency_ms": size_of(run.net.finish(), data, Target(**member["timed"]))}


def _method(member: dict[str, Any]) -> Method:
    decay = {"weight_decay": member["weight_decay"]} if member["weight_decay"] else {}
    return methods.create(member["method"], member["knob"], **member["settings"], **decay)


def build(member: dict[str, Any], data: Data, luggage: Luggage) -> torch.nn.Module:
    """The network of a trial, its weights drawn from the trial's seed."""
    torch.manual_seed(member["seed"])
    network = code_of(luggage) or member["network"]
    return plan.build(network, data.input_shape, data.outputs, member["widths"])


def _tell(rows: list[dict[str, Any]]) -> None:
    """Reports an epoch, and waits until the driver has written it."""
    try:
        tune.report({"members": rows})
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


def _start(member: dict[str, Any], attempt: Attempt) -> Path | None:
    """What a step of a path begins with, in a file of this machine."""
    if member["start"] is None or attempt.epochs:
        return None
    target = attempt.folder / "start.safetensors"
    files.at(member["files"]).get(member["start"], target)
    return target


def _fit(
    member: dict[str, Any], attempt: Attempt, name: dict[str, Any], device: str, luggage: Luggage, alarm: Alarm
) -> dict[str, Any]:
    data = data_of(luggage, member["fold"])
    # What the driver has already is not sent again, unless this attempt had to begin before it.
    known = min(member["known"], attempt.epochs)

    def report(epoch: Epoch) -> None:
        # The clock stands while files are put and the driver is waited for.
        alarm.off()
        # Of epochs that were done before, none but the last is the one that the state is of.
        if (
            member["hands_over"]
            and epoch.epoch == member["epochs"] - member["settle"]
            and epoch.epoch >= attempt.epochs
        ):
            # Whole or not at all, and never written into: an earlier attempt's may be the same file.
            files.at(str(attempt.folder)).copy(STATE, attempts.HANDOVER)
        attempt.keep()
        if epoch.epoch > known:
            _tell([{**name, "epoch": epoch.to_dict()}])
        if epoch.epoch < member["epochs"]:
            if alarm.limit is not None and epoch.seconds >= alarm.limit:
                raise TimeUpError(time_up(alarm.limit, epoch.epoch))
            alarm.set(epoch.seconds)

    if attempt.epochs < member["epochs"]:
        alarm.set(attempt.seconds)
    run = sizer.fit(
        build(member, data, luggage), data, _method(member),
        epochs=member["epochs"], batch_size=member["batch_size"], learning_rate=member["learning_rate"],
        optimizer=member["optimizer"], precision=member["precision"], seed=member["seed"], device=device,
        folder=attempt.folder, on_epoch=report, settle=member["settle"], start=_start(member, attempt),
        **member["limit"],
    )  # fmt: skip
    return _ended(run, member, data)
