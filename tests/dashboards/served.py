"""A `sizer dashboard` in a thread of the test: real sockets, real HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from dashboards import service
from dashboards.gate import Keys
from dashboards.server import listen, server
from studies.database import Database, locate
from studies.launch import Launched, Submissions, launch

READ, WRITE = "reads-0123456789abcdef", "writes-0123456789abcdef"


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        port: Where it listens.
        app: What stands behind its gate.
        database: What it shows.
        client: Asks it; keeps no cookies from one request to the next.
    """

    port: int
    app: FastAPI
    database: Database
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, token: str | None = READ, method: str = "GET", **more: Any) -> httpx.Response:
        """One request; `headers` are added to the token's."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= more.pop("headers", {})
        self.client.cookies.clear()
        return self.client.request(method, path, headers=headers, **more)

    def status(self, path: str, token: str | None = READ, method: str = "GET", **more: Any) -> int:
        """The status of one answer."""
        return self.ask(path, token, method, **more).status_code


@contextlib.contextmanager
def served(
    path: Path | str, *, writable: bool = False, start: Callable[..., Launched] = launch, keys: Keys | None = None
) -> Iterator[Served]:
    """Serves a database for as long as the block lasts."""
    database = locate(path)[0]
    submissions = Submissions(database, start=start)
    given = keys or Keys.of(READ, WRITE)
    gate = service.application(database, given, writable=writable, submissions=submissions)
    with listen("127.0.0.1", 0) as sock:
        running = server(gate)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            assert isinstance(gate.app, FastAPI)
            port = sock.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
                yield Served(port, gate.app, database, client)
        finally:
            running.should_exit = True
            thread.join()
            database.close()
