"""Starts sweeps that outlive whoever asked for them: as processes of this machine, or as jobs of a Ray cluster.

What is sent twice is one study: while it is run, or once it is done, nothing is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sizer.errors import InputError
from studies import query, stopping
from studies.database import Database
from studies.outages import plain_errors
from studies.plan import Plan, differences
from studies.reading import written
from studies.standing import DONE, FAILED, RUNNING, STARTING, Standing, not_begun
from studies.sweep import remaining

_JOBS_BEGIN_WITHIN = 180.0
_COMPLAINS = "sizer: "
_OURS_ALONE = ("SIZER_TOKEN", "SIZER_SERVER")


class ChangedPlanError(InputError):
    """A plan under the name of another one; the line says what differs."""


@dataclass(frozen=True)
class Launched:
    """A sweep that was started.

    Attributes:
        process: Of this machine; None where it is a job.
        log: What it says, if it is a process.
        job: The Ray job's id; "" where it is a process.
        since: When, by the monotonic clock.
    """

    process: subprocess.Popen[bytes] | None
    log: Path | None
    job: str = ""
    since: float = field(default_factory=time.monotonic)

    @property
    def alive(self) -> bool:
        """Whether it runs; a job is believed to be on its way for minutes, and then known by its lease alone."""
        if self.process is None:
            return time.monotonic() < self.since + _JOBS_BEGIN_WITHIN
        return self.process.poll() is None

    @property
    def complaint(self) -> str:
        """The line with which it ended, if it could not do what was asked; else ""."""
        if self.log is None or self.alive or not self.log.is_file():
            return ""
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        return last.removeprefix(_COMPLAINS) if last.startswith(_COMPLAINS) else ""


def launch(plan_toml: str, database: Database, name: str, jobs_address: str | None = None) -> Launched:
    """Starts a sweep and returns at once.

    A process of this machine is told the database by its environment: on its command line anybody could read it.

    Args:
        plan_toml: The plan, or several as cells.
        database: Where its trials go; must exist.
        name: What its file is called.
        jobs_address: Where a Ray cluster takes jobs; a process of this machine unless given.

    Raises:
        InputError: The disk refuses, or the cluster does.
    """
    if jobs_address is not None:
        from studies import jobs

        # Its job would show a password to all who see it: the cluster has its own from where it was started.
        return Launched(None, None, jobs.submit(plan_toml, jobs_address, _url(database, password=False), name))
    folder = database.files / "plans"
    file = folder / f"{name.replace('/', '+')}.toml"
    with plain_errors(database):
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(plan_toml, encoding="utf-8")
        with file.with_suffix(".log").open("wb") as log:
            return Launched(_process(file, _url(database), log), Path(log.name))


class Submissions:
    """The sweeps that one server started, and what has become of them.

    Args:
        database: Where they go.
        jobs_address: As `launch` takes it.
        start: `launch`, or what takes its place.
    """

    def __init__(
        self, database: Database, jobs_address: str | None = None, start: Callable[..., Launched] = launch
    ) -> None:
        self._database = database
        self._jobs_address = jobs_address
        self._start = start
        self._known: dict[str, tuple[Plan, Launched]] = {}
        self._one_at_a_time = threading.Lock()

    def submit(self, plans: Sequence[Plan]) -> dict[str, str]:
        """Starts what is not done and not run by anybody yet; several plans run one after the other.

        Returns:
            name -> `done`, `running` (also where it was on its way already) or `starting`.

        Raises:
            ChangedPlanError: Another plan of that name is there.
            InputError: It cannot be started.
        """
        with self._one_at_a_time:
            states = {plan.name: self._state(plan) for plan in plans}
            fresh = [plan for plan in plans if states[plan.name] == STARTING]
            if fresh:
                name = fresh[0].name if len(fresh) == 1 else fresh[0].name.rpartition("/")[0]
                launched = self._start(written(fresh), self._database, name, self._jobs_address)
                self._known |= {plan.name: (plan, launched) for plan in fresh}
            return states

    def not_begun(self) -> dict[str, Standing]:
        """The plans that were started here and that the database does not know yet, or never will."""
        begun = set(query.plan_names(self._database))
        found = {}
        for name, (plan, launched) in self._known.items():
            if name not in begun:
                said = "it is being started" if launched.alive else launched.complaint or "it ended before it began"
                found[name] = not_begun(plan.spec(), STARTING if launched.alive else FAILED, said)
        return found

    def complaint(self, name: str) -> str:
        """With which line the sweep that was started here last ended early; "" where it did not."""
        _, launched = self._known.get(name, (None, None))
        return launched.complaint if launched is not None else ""

    def stop(self, name: str) -> str:
        """Ends a sweep, wherever it runs; gives in words who was asked to.

        Raises:
            InputError: Nobody runs it.
        """
        with self._one_at_a_time:
            _, launched = self._known.get(name, (None, None))
            if self._held(name) or launched is None or launched.process is None or not launched.alive:
                return stopping.ask(self._database, name)
            together = [other for other, (_, same) in self._known.items() if same is launched]
            if busy := [other for other in together if self._held(other)]:
                raise InputError(f"{name} has not begun: it waits for {busy[0]}, and ends with it if that is stopped")
            launched.process.terminate()
            return f"process {launched.process.pid}, which had not begun"

    def _state(self, plan: Plan) -> str:
        before, launched = self._known.get(plan.name, (None, None))
        under_way = launched is not None and launched.alive
        if before is not None and under_way and (changed := differences(before.spec(), plan.spec())):
            raise ChangedPlanError(f"another plan {plan.name} is being started: {'; '.join(changed)}")
        with plain_errors(self._database):
            try:
                left = remaining(self._database, plan)
            except InputError as error:
                raise ChangedPlanError(str(error)) from None
        if not left:
            return DONE
        return RUNNING if under_way or self._held(plan.name) else STARTING

    def _held(self, name: str) -> bool:
        return query.driver(self._database, name) != query.NOBODY


def _process(file: Path, url: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """`sizer sweep` in a session of its own, so that the end of this process is not its end."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dashboards", "sweep", str(file)],
        env={**environment, "SIZER_DB": url},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # Waited for, so that no dead process stays in the table.
    threading.Thread(target=process.wait, name=f"sweep {file.stem}", daemon=True).start()
    return process


def _url(database: Database, *, password: bool = True) -> str:
    """Where the database is, for a process elsewhere: an SQLite file's whole path, or a server's URL."""
    if database.is_file:
        return str(Path(database.url.database or "").resolve())
    url = database.url if password else database.url._replace(password=None)  # set() leaves what is None
    return url.render_as_string(hide_password=False)
