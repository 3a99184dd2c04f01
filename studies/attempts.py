"""The attempts at one trial: each worker that begins it or takes it up trains in a folder of its own.

A worker that is thought dead may live: of a killed driver for seconds, over a network that is cut for a minute. A lock
would wait for it, and shared folders and buckets have none. So no two workers write the same file. Each begins with
what the furthest attempt before it has kept, says with every report which attempt it is, and the driver takes the
weights from the one that it believed. When a trial has ended its whole run goes; only the driver makes a run, so that
a worker that wakes up later finds none, and stops.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sizer import Epoch
from sizer.checkpoint import read_notes
from sizer.errors import InputError, SizerError
from sizer.history import choices
from sizer.training import STATE, weights_file
from studies.files import RUNS, Files

TRACEBACK = "traceback.txt"
HANDOVER = "handover.safetensors"
"""What a step of a path leaves for the next one."""
_AGAIN, _TORN = 20, 3
_SCRATCH_LASTS = 3600.0


class ClearedError(SizerError):
    """The run is gone: its trial has ended, by another attempt."""


@dataclass
class Attempt:
    """One worker's own try at a trial.

    Attributes:
        name: Of its folder in the run's.
        folder: Where `sizer.fit` keeps its state.
        epochs: How many it goes on from.
        seconds: How long those were trained.
        overdue: The traceback of an earlier attempt that was ended because its time was over; empty if none was.
    """

    name: str
    folder: Path
    epochs: int = 0
    seconds: float = 0.0
    overdue: str = ""
    _files: Files | None = None
    _run: str = ""
    _there: dict[str, int] = field(default_factory=dict)

    def keep(self) -> None:
        """Brings what the folder holds to where the run's files are, if that is elsewhere; old weights go last.

        Raises:
            ClearedError: The driver has cleared the run.
        """
        if self._files is None:
            return
        if not self._files.has(self._run):
            raise ClearedError(f"{self._files.place}/{self._run} was cleared: its trial has ended")
        state = self.folder / STATE
        kept = [*self.folder.glob("epoch-*.safetensors"), *self.folder.glob(HANDOVER), state]
        here = {path.name: path.stat().st_mtime_ns for path in kept}
        for name, changed in here.items():
            if self._there.get(name) != changed:
                with (self.folder / name).open("rb") as content:
                    self._files.put(content, f"{self._run}/{self.name}/{name}")
        for name in self._there.keys() - here.keys():
            self._files.remove(f"{self._run}/{self.name}/{name}")
        self._there = here


def run_of(study_name: str, number: int | str) -> str:
    """The name of a trial's run; the study's stands in it with `+` for `/`."""
    return f"{RUNS}/{study_name.replace('/', '+')}-{number}"


def weights_of(run: str, attempt: str, epoch: int) -> str:
    """The name of the weights that an attempt kept of an epoch; of none, those that lie in the run itself."""
    return "/".join(part for part in (run, attempt, weights_file(Path(), epoch).name) if part)


def left(files: Files, study_names: list[str]) -> list[tuple[str, str, int]]:
    """The runs there are of some studies: name, study and number; those, too, that are half removed."""
    studies = {name.replace("/", "+"): name for name in study_names}
    found = []
    for entry in files.names(RUNS):
        match = re.fullmatch(r"(.+)-(\d+)(\.gone-[0-9a-f]+)?", entry)
        if match and match[1] in studies:
            found.append((f"{RUNS}/{entry}", studies[match[1]], int(match[2])))
    return found


@contextlib.contextmanager
def taken_up(files: Files, run: str) -> Iterator[Attempt]:
    """A new attempt at a run, which begins with the furthest state that earlier ones kept.

    Raises:
        OSError: The driver has cleared the run, or its disk is full.
        ClearedError: The driver has cleared the run.
    """
    base = files.folder / run if files.folder is not None else _scratch(f"{files.place}/{run}")
    name = f"attempt-{os.getpid()}-{secrets.token_hex(4)}"
    attempt = Attempt(name, base / name, overdue=_overdue(base))
    # Without parents: that would bring a cleared run back.
    attempt.folder.mkdir()
    try:
        _begin(files, run, attempt)
        if files.folder is None:
            attempt._files, attempt._run = files, run
            _sweep_scratch(base)
        yield attempt
    finally:
        if files.folder is None:
            shutil.rmtree(attempt.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                base.rmdir()


def _begin(files: Files, run: str, attempt: Attempt) -> None:
    """Takes the furthest state over, with its weights."""
    others = [each for each in files.names(run) if each.startswith("attempt-") and each != attempt.name]
    if len(others) > 1:
        others.sort(key=lambda earlier: -len(_state(files, f"{run}/{earlier}", attempt.folder)))
    for earlier in others:
        for taken in attempt.folder.glob("epoch-*.safetensors"):
            taken.unlink()
        torn = 0
        for _ in range(_AGAIN):
            epochs = _state(files, f"{run}/{earlier}", attempt.folder)
            try:
                for target in (weights_file(attempt.folder, epoch.epoch) for epoch in choices(epochs)):
                    if not target.exists():
                        files.get(f"{run}/{earlier}/{target.name}", target)
            except (FileNotFoundError, InputError):
                # Its worker is alive and has just kept another epoch: its new state goes with some other weights.
                target.unlink(missing_ok=True)
                continue
            if epochs:
                with contextlib.suppress(FileNotFoundError):
                    files.get(f"{run}/{earlier}/{HANDOVER}", attempt.folder / HANDOVER)
                attempt.epochs, attempt.seconds = len(epochs), epochs[-1].seconds
                return
            torn += 1  # there is none, or it was replaced while it was read
            if torn == _TORN:
                break
    (attempt.folder / STATE).unlink(missing_ok=True)


def _state(files: Files, attempt: str, folder: Path) -> list[Epoch]:
    """Fetches the state that an attempt kept; its epochs, none where there is no whole state."""
    try:
        files.get(f"{attempt}/{STATE}", folder / STATE)
        return [Epoch.from_dict(fields) for fields in read_notes(folder / STATE)["history"]]
    except (FileNotFoundError, InputError):
        return []


def _overdue(base: Path) -> str:
    """The traceback that an attempt left here when its time was over."""
    for path in sorted(base.glob(f"attempt-*/{TRACEBACK}")):
        with contextlib.suppress(OSError):
            if text := path.read_text(encoding="utf-8", errors="replace"):
                return text
    return ""


def _scratch(run: str) -> Path:
    """A folder of this machine for the attempts at a run that is kept elsewhere.

    Raises:
        InputError: Somebody else holds the place.
    """
    root = Path(tempfile.gettempdir()) / f"sizer-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise InputError(f"{root} belongs to somebody else: remove it, or set TMPDIR")
    base = root / hashlib.sha256(run.encode()).hexdigest()[:32]
    base.mkdir(exist_ok=True)
    return base


def _sweep_scratch(base: Path) -> None:
    """Removes what killed workers left on this machine: of this run, and of others once nobody can want it."""
    for dead in base.parent.glob("*/attempt-*"):
        with contextlib.suppress(OSError):
            wanted = dead.parent != base and dead.stat().st_mtime > time.time() - _SCRATCH_LASTS
            if not wanted and not _is_alive(int(dead.name.split("-")[1])):
                shutil.rmtree(dead, ignore_errors=True)
                if dead.parent != base:
                    dead.parent.rmdir()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
