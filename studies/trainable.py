"""What runs in a worker: one trial, trained with `sizer.fit`, an epoch reported at a time. Workers hold no database.

The run's folder is the only checkpoint: `fit` leaves its state there after every epoch and goes on from it, whether
the worker died (Tune starts the same trial again) or the driver did (the next one adopts the row). Tune's own
checkpoints would copy the same files once more, and would be unknown to a new driver.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from ray import tune

import sizer
from sizer import Epoch, datasets, methods
from sizer.datasets import Data
from sizer.errors import SizerError
from studies import luggage, plan

_LOCK_SECONDS = 30.0


def train(config: dict[str, Any]) -> None:
    """The trainable that Ray Tune calls.

    Args:
        config: `members`, a list of one trial as `studies.driver.Driver.next` describes it, `cpus` and `gpus`.

    Reports `{"members": [...]}`: an `epoch` while it trains, and at the end a `status`: complete, collapsed,
    diverged, error (the user's code or memory failed; `traceback` says where) or refused (the trial cannot be set
    up here at all, so that no other could either). A failure is reported, never raised: Tune would try it again.
    """
    for member in config["members"]:
        # Ray tells OpenMP one thread for a task of one CPU; torch is told here, in the thread that trains.
        torch.set_num_threads(max(1, int(config["cpus"])))
        device = "cuda" if config["gpus"] > 0 and torch.cuda.is_available() else "cpu"
        name = {"trial_id": member["trial_id"], "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
        try:
            with _alone(Path(member["folder"])):
                end = _fit(member, name, device)
        except Exception as error:  # whatever the user's code does; reported, as Tune would try a raised one again
            # What our own code or the disk refuses is no result of this trial: any other would meet the same.
            status = "refused" if isinstance(error, SizerError | OSError) else "error"
            end = {"status": status, "reason": _reason(error), "traceback": traceback.format_exc()}
        tune.report({"members": [{**name, **end}]})


def build(member: dict[str, Any], data: Data) -> torch.nn.Module:
    """The network of a trial, its weights drawn from the trial's seed."""
    torch.manual_seed(member["seed"])
    network = luggage.code_of(member["code"]) if "code" in member else member["network"]
    return plan.build(network, data.input_shape, data.outputs, member["widths"])


@lru_cache(maxsize=2)
def data_of(
    source: str, validation: float, seed: int, folds: int | None, fold: int, samples: int | None, tensors: str | None
) -> Data:
    """The data, loaded once a process: a worker trains many trials on it.

    Args:
        source: As a plan names it.
        validation: The share held out.
        seed: Which rows are.
        folds: Into how many parts it is merged and parted; None where it has a test set of its own.
        fold: Which of them is the test set.
        samples: Training rows at most.
        tensors: The file that holds what the user's own function gave; None where `source` is no function.
    """
    if tensors is not None:
        return luggage.data_of(tensors)
    return datasets.load(source, validation=validation, seed=seed, folds=folds, fold=fold, samples=samples)


def _fit(member: dict[str, Any], name: dict[str, Any], device: str) -> dict[str, Any]:
    parts = (member[key] for key in ("data", "validation", "data_seed", "folds", "fold", "samples"))
    data = data_of(*parts, member.get("tensors"))
    decay = {"weight_decay": member["weight_decay"]} if member["weight_decay"] else {}
    method = methods.create(member["method"], member["knob"], **member["settings"], **decay)

    def report(epoch: Epoch) -> None:
        # What the driver has already is not sent again when a run goes on from its folder.
        if epoch.epoch > member["known"]:
            tune.report({"members": [{**name, "epoch": epoch.to_dict()}]})

    run = sizer.fit(
        build(member, data), data, method,
        epochs=member["epochs"], batch_size=member["batch_size"], learning_rate=member["learning_rate"],
        optimizer=member["optimizer"], seed=member["seed"], device=device,
        folder=Path(member["folder"]), on_epoch=report,
    )  # fmt: skip
    return {"status": run.status, "reason": run.reason, "notes": run.net.notes}


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, SizerError | OSError):
        return lines[0] if lines else type(error).__name__
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the run's folder: the worker of a killed driver may train on in it for some seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(f"another worker has trained in {folder} for {_LOCK_SECONDS:.0f} s") from None
                time.sleep(0.1)
        yield
