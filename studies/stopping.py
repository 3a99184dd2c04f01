"""Asks the driver of an evaluation to end, wherever it runs: it reads that when it renews its lease."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sizer.errors import InputError
from studies.database import Database, open_database
from studies.lease import is_held
from studies.outages import plain_errors, retried
from studies.tables import leases

_TRIED_FOR = 10.0


def ask(database: str | Path | Database, plan_name: str) -> str:
    """Asks whoever runs an evaluation to end as Ctrl-C would; it does within seconds, and the next run goes on.

    Args:
        database: The database.
        plan_name: The evaluation.

    Returns:
        Who was asked: `process 4711 on HOST`.

    Raises:
        InputError: Nobody runs it.
    """
    opened = open_database(database)
    with plain_errors(opened):
        held = _holder(opened, plan_name)
        if held is None:
            raise InputError(f"nobody runs {plan_name}: there is nothing to stop")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        wanted = leases.update().where((leases.c.plan == plan_name) & (leases.c.token == held.token))

        def write() -> None:
            with opened.engine.begin() as connection:
                connection.execute(wanted.values(stop=f"`sizer stop` on {socket.gethostname()} at {now}"))

        retried(write, lasts=_TRIED_FOR)
    return f"process {held.pid} on {held.host}"


def _holder(database: Database, plan_name: str) -> sa.Row[Any] | None:
    """The lease of the driver that may be alive."""
    with database.engine.connect() as connection:
        row = connection.execute(leases.select().where(leases.c.plan == plan_name)).first()
    return row if row is not None and is_held(row) else None
