"""`sizer dashboard`: who is let in, what is printed, and a server until Ctrl-C."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dashboards import pages, service
from dashboards.gate import READ, WRITE, Keys, read_token
from dashboards.server import listen, server
from sizer.errors import InputError
from studies import query
from studies.database import Database, locate, open_database
from studies.launch import Submissions

_ANYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True)
class Access:
    """Where a server listens and whom it lets in.

    Attributes:
        host: The address to listen on.
        read_file: The file of the token that reads.
        write_file: The file of the token that writes.
        allowed: Names by which it may be asked, beside this machine's own; commas part some in one.
        writable: Let Optuna Dashboard write, too.
        made: The token of a run without files.

    Raises:
        InputError: Others could reach it without a token, or nobody could write where somebody should.
    """

    host: str = "127.0.0.1"
    read_file: Path | None = None
    write_file: Path | None = None
    allowed: Sequence[str] = ()
    writable: bool = False
    made: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def __post_init__(self) -> None:
        if not self.own and self.host not in service.LOOPBACK:
            raise InputError(
                f"--host {self.host} lets others reach it: give --read-token-file or --write-token-file, or both"
            )
        if self.own and self.writable and self.write_file is None:
            raise InputError("--writable is for who has the write token: give --write-token-file, too")

    @property
    def own(self) -> bool:
        """Whether tokens were given; else one is made for this run."""
        return self.read_file is not None or self.write_file is not None

    @property
    def writes(self) -> bool:
        """Whether anybody may write."""
        return self.write_file is not None or self.writable

    def keys(self) -> Keys:
        """What the tokens open.

        Raises:
            InputError: A file has none.
        """
        if not self.own:
            return Keys.of(**{WRITE if self.writable else READ: self.made})
        read, write = (None if file is None else read_token(file) for file in (self.read_file, self.write_file))
        return Keys.of(read, write)

    def names(self) -> list[str]:
        """The host names that it answers to."""
        return [*service.LOOPBACK, *self.given_names(), *([] if self.host in _ANYWHERE else [self.host])]

    def given_names(self) -> list[str]:
        """Those of `allowed`, one by one."""
        return [name for each in self.allowed for name in each.replace(",", " ").split()]


def run(db: str, access: Access, port: int, jobs_address: str | None = None) -> None:
    """Serves a database until Ctrl-C, and prints where.

    Raises:
        InputError: There is none, or it cannot listen there.
    """
    keys, database = access.keys(), _database(db, access)
    app = service.application(
        database,
        keys,
        names=access.names(),
        writable=access.writable,
        submissions=Submissions(database, jobs_address),
    )
    with listen(access.host, port) as sock:
        shown = [*access.given_names(), "localhost"][0]
        _announce(f"http://{shown}:{sock.getsockname()[1]}", database, access)
        with contextlib.suppress(KeyboardInterrupt):
            server(app).run(sockets=[sock])


def _database(db: str, access: Access) -> Database:
    """The database; one that is not there yet is made where plans can be submitted."""
    if not access.writes:
        return open_database(db)
    database, fresh = locate(db)
    if fresh:
        database.create()
    return database


def _announce(address: str, database: Database, access: Access) -> None:
    writes = "can be changed with the write token" if access.writable else "to look at only"
    token = "" if access.own else f"?token={access.made}"
    lines = [(f"{address}/{token}", "all evaluations"), (f"{address}/dashboard", f"Optuna Dashboard, {writes}")]
    lines += [(f"{address}{pages.evaluation_path(name)}", "evaluation") for name in query.plan_names(database)]
    lines += [(f"{address}/openapi.json", "what the API can do")]
    for where, what in lines:
        print(f"{where}  {what}")
    if not access.own:
        print("The first address lets a browser in; the token changes with every start.")
    print("Ctrl-C ends it.", flush=True)
