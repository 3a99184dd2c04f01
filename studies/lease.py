"""Who may write an evaluation: one driver at a time, known by a token that every write shows.

Workers outlive a killed driver by some seconds, so a lease lasts longer than that. A holder on the same machine
whose process is gone is followed at once.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sizer.errors import InputError
from studies.database import Database
from studies.outages import LostDatabaseError
from studies.tables import leases

SINCE = "%Y-%m-%d %H:%M:%S UTC"
"""How a lease says since when it is held."""
LASTS = 15.0
RENEWED_EVERY = 3.0


class Lease:
    """The right to write one evaluation, renewed by a thread until released.

    Args:
        database: Where the evaluation is.
        plan: Its name.
        note: Told in one line why there is a wait, if there is one.

    Attributes:
        asked: Who asked that the driver ends, as `studies.stopping.ask` wrote it; "" while nobody has.

    Raises:
        InputError: Another driver that is alive holds it.
    """

    def __init__(self, database: Database, plan: str, note: Callable[[str], None] = lambda line: None) -> None:
        self.plan = plan
        self.token = secrets.token_hex(16)
        self.asked = ""
        self._database = database
        self._stop = threading.Event()
        self._acquire(note)
        self._thread = threading.Thread(target=self._keep, name=f"lease of {plan}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def show(self, connection: sa.Connection) -> None:
        """Renews the lease inside the transaction of a write, so that both stand or neither.

        Raises:
            LostDatabaseError: Another driver took over.
        """
        # The update comes first in its transaction: it takes the row's lock (on SQLite the database's) at once.
        held = (leases.c.plan == self.plan) & (leases.c.token == self.token)
        if connection.execute(leases.update().where(held).values(expires=time.time() + LASTS)).rowcount == 0:
            raise self._lost()

    def check(self, connection: sa.Connection) -> None:
        """Makes sure, without renewing it, that the lease is held until the connection's transaction ends.

        Raises:
            LostDatabaseError: Another driver took over.
        """
        held = (leases.c.plan == self.plan) & (leases.c.token == self.token)
        if connection.scalar(sa.select(leases.c.pid).where(held).with_for_update(read=True)) is None:
            raise self._lost()

    def release(self) -> None:
        """Ends the renewal and frees the evaluation for the next driver."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(sa.exc.SQLAlchemyError), self._database.engine.begin() as connection:
            connection.execute(leases.delete().where((leases.c.plan == self.plan) & (leases.c.token == self.token)))

    def _lost(self) -> LostDatabaseError:
        return LostDatabaseError(f"another driver took over {self.plan}: this one stops and writes nothing more")

    def _keep(self) -> None:
        while not self._stop.wait(RENEWED_EVERY):
            # A renewal that fails is no news: the next write shows the lease itself and says what is wrong.
            with contextlib.suppress(sa.exc.SQLAlchemyError, LostDatabaseError):
                self._renew()

    def _renew(self) -> None:
        with self._database.engine.begin() as connection:
            self.show(connection)
            self.asked = connection.scalar(sa.select(leases.c.stop).where(leases.c.plan == self.plan)) or ""

    def _acquire(self, note: Callable[[str], None]) -> None:
        seen: float | None = None
        while True:
            holder = self._database.again(self._take)
            if holder is None:
                return
            here = holder["machine"] == _machine()
            if here or (seen is not None and holder["expires"] != seen):
                raise InputError(
                    f"{self.plan} is being run by process {holder['pid']} on {holder['host']} since {holder['since']}:"
                    " wait for it, or end it"
                )
            if seen is None:
                wait = max(0.0, holder["expires"] - time.time())
                note(f"{self.plan} was held by {holder['host']} (process {holder['pid']}): waiting {wait:.0f} s for it")
            seen = holder["expires"]
            time.sleep(max(0.1, min(RENEWED_EVERY + 1.0, holder["expires"] - time.time() + 0.1)))

    def _take(self) -> dict[str, Any] | None:
        """Takes the lease if nobody alive has it; else says who does."""
        now = time.time()
        mine = {
            "plan": self.plan, "token": self.token, "host": socket.gethostname(), "machine": _machine(),
            "pid": os.getpid(), "started": _started(os.getpid()), "expires": now + LASTS, "stop": None,
            "since": datetime.datetime.now(datetime.UTC).strftime(SINCE),
        }  # fmt: skip
        with self._database.engine.begin() as connection:
            row = connection.execute(leases.select().where(leases.c.plan == self.plan)).first()
            if row is None:
                try:
                    connection.execute(leases.insert().values(mine))
                except sa.exc.IntegrityError:
                    return {"machine": "", "pid": "?", "host": "?", "since": "just now", "expires": now + 1}
                return None
            if row.token == self.token:  # taken before, when the answer was lost
                return None
            if is_held(row):
                return dict(row._mapping)
            taken = leases.update().where((leases.c.plan == self.plan) & (leases.c.token == row.token))
            return None if connection.execute(taken.values(mine)).rowcount else dict(row._mapping)


def is_held(row: sa.Row[Any]) -> bool:
    """Whether the holder of a lease may be alive: not lapsed, nor of a process of this machine that ended."""
    return bool(row.expires > time.time() and (row.machine != _machine() or _started(row.pid) == row.started))


def _machine() -> str:
    """A host, its boot and its process namespace: where a pid means the same process."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
