"""Faults that are really caused: the driver killed, a worker killed, Ctrl-C, a full disk. Afterwards all is whole."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sizer.errors import InputError
from studies.sweep import run
from tests.studies.sweeps import ARMS, Seen, check_whole, rows, small_plan

ROOT = Path(__file__).resolve().parents[2]
# Long enough to be hit in the middle: an epoch takes about 30 ms.
LONG: dict[str, Any] = {"epochs": 60, "trials": 2, "batch_size": 16, "widths": [40]}


class Sweep:
    """A sweep in a process of its own, and what it says."""

    def __init__(self, database: Path, **values: Any) -> None:
        arguments = ["-m", "tests.studies.sweeps", str(database), json.dumps(values)]
        command = [sys.executable, "-W", "error", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.lines: list[list[str]] = []

    def until(self, kind: str, count: int = 1) -> None:
        """Reads on until so many more lines of a kind have come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n").split("\t"))
            count -= self.lines[-1][0] == kind
            if not count:
                return
        raise AssertionError(f"it ended without {kind}: {self.lines[-3:]} {self.end()[1]}")

    def of(self, kind: str) -> list[list[str]]:
        """The lines of one kind, without their kind."""
        return [line[1:] for line in self.lines if line[0] == kind]

    def kill(self) -> None:
        """kill -9 of the driver alone."""
        self.process.kill()
        self.end()

    def end(self) -> tuple[int, str]:
        """Waits for the end: exit code and what stands on stderr."""
        out, error = self.process.communicate(timeout=120)
        self.lines += [line.split("\t") for line in out.splitlines()]
        return self.process.returncode, error


@contextlib.contextmanager
def sweep(database: Path, **values: Any) -> Iterator[Sweep]:
    """A sweep that does not outlive its test."""
    started = Sweep(database, **values)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.process.kill()
        started.process.communicate()


def workers_of(driver: int) -> list[int]:
    """The processes below a driver in which trials are trained; Ray names them after what they run."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        with contextlib.suppress(OSError):
            if above == driver and Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::ImplicitFunc"):
                found.append(pid)
    return found


def test_a_killed_driver_loses_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sweep(path, **LONG) as first:
        first.until("epoch", 7)
        first.kill()
    told = {(arm, int(number), int(epoch)) for arm, number, epoch, _ in first.of("epoch")}
    written = rows(path, "select study_name, number, epoch from sizer_history join trials using (trial_id)"
                         " join studies using (study_id)")  # fmt: skip
    assert {(arm.rpartition("/")[2], number, epoch) for arm, number, epoch in written} >= told
    assert rows(path, "select distinct state from trials") == [("RUNNING",)]

    seen = Seen()
    plan = small_plan(**LONG)
    outcome = run(plan, path, watch=seen)
    assert outcome.left == 0
    check_whole(path, plan)
    again = {(arm, int(number), int(epoch)) for arm, number, epoch, _ in seen.of("epoch")}
    # What was written is not trained again: the run's own state is at least as far.
    assert not again & told
    assert sum(len(each) for each in (again, told)) >= 4 * 60 - 4


def test_a_killed_worker_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sweep(path, **LONG) as running:
        running.until("epoch", 8)
        victims = workers_of(running.process.pid)
        assert victims
        os.kill(victims[0], signal.SIGKILL)
        code, error = running.end()
    assert (code, error) == (0, "")
    check_whole(path, small_plan(**LONG))
    (note,) = running.of("note")
    assert "its worker died; it goes on after epoch" in note[0]
    assert len(running.of("epoch")) == 4 * 60
    assert running.of("done") == [["0", ""]]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_at_once_and_goes_on_later(tmp_path: Path, kind: signal.Signals) -> None:
    path = tmp_path / "x.db"
    # Epochs of seconds: it must not wait for their end.
    slow = {**LONG, "epochs": 3, "batch_size": 1, "widths": [800], "arms": {"fixed": ARMS["fixed"]}}
    with sweep(path, **slow) as running:
        running.until("epoch", 1)
        began = time.monotonic()
        # To the whole group, as a terminal sends Ctrl-C.
        os.killpg(running.process.pid, kind)
        code, error = running.end()
        assert time.monotonic() - began < 10
    assert (code, error) == (0, "")
    ((left, stopped),) = running.of("done")
    assert stopped == "interrupted"
    assert int(left) > 0
    assert rows(path, "select count(*) from sizer_history")[0][0] >= len(running.of("epoch"))
    assert rows(path, "select * from sizer_leases") == []
    run(small_plan(**slow), path, watch=Seen())
    check_whole(path, small_plan(**slow))


def test_a_timeout_ends_like_an_interruption_and_says_so(tmp_path: Path) -> None:
    plan = small_plan(**{**LONG, "epochs": 100000})
    began = time.monotonic()
    outcome = run(plan, tmp_path / "x.db", watch=Seen(), timeout=1)
    assert time.monotonic() - began < 30
    assert (outcome.stopped, outcome.left) == ("timeout", 4)


def test_a_disk_that_refuses_a_worker_is_one_line_and_leaves_the_trial_to_be_done(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    (tmp_path / "x.files" / "runs").mkdir(parents=True)
    in_the_way = tmp_path / "x.files" / "runs" / "small+fixed-0"
    in_the_way.write_text("a file where the run's folder would be")
    plan = small_plan(arms={"fixed": ARMS["fixed"]}, trials=1)
    with pytest.raises(InputError, match=r"small\+fixed-0") as caught:
        run(plan, path, watch=Seen())
    assert "\n" not in str(caught.value)
    in_the_way.unlink()
    run(plan, path, watch=Seen())
    check_whole(path, plan)
