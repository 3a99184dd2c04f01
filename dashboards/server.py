"""Optuna Dashboard on this machine's own address, with our report beside it under /report/PLAN.

Optuna Dashboard has no login, so this listens on the loopback address alone, answers only requests that name it, and
lets nothing through that would change the database unless asked to.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import unquote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage

from sizer.errors import InputError, SizerError

HOST = "127.0.0.1"
NAMES = {HOST, "localhost"}
REPORT = "/report/"


def application(
    storage: BaseStorage, artifacts: Path, *, report: Callable[[str], str], writable: bool = False
) -> WSGIApplication:
    """The pages as a WSGI application.

    Args:
        storage: what Optuna Dashboard shows, with the `artifacts` folder beside it.
        report: the HTML of an evaluation's report from its name; raises SizerError where there is none.
        writable: let Optuna Dashboard rename, delete, tell and upload; otherwise only GET and HEAD pass.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    dashboard = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(str(artifacts)))

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", ""))
        origin = environ.get("HTTP_ORIGIN")
        if urlsplit(f"//{host}").hostname not in NAMES or (origin and urlsplit(str(origin)).netloc != host):
            return _text(start, "403 Forbidden", f"Ask for this page as http://localhost, not as {host!r}.")
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if not (reads or writable):
            line = "This dashboard only shows: start it with `sizer dashboard --writable` to change anything."
            return _text(start, "405 Method Not Allowed", line, ("Allow", "GET, HEAD"))
        path = str(environ.get("PATH_INFO", ""))
        if reads and path.startswith(REPORT):
            try:
                page = report(unquote(path.removeprefix(REPORT)))
            except SizerError as error:
                return _text(start, "404 Not Found", str(error))
            return _send(start, "200 OK", "text/html; charset=utf-8", page, head=environ["REQUEST_METHOD"] == "HEAD")
        # Optuna Dashboard's static files answer 500 to a request that does not name its encodings.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        answered: Iterable[bytes] = dashboard(environ, start)
        return answered

    return answer


def server(app: WSGIApplication, port: int = 8080) -> WSGIServer:
    """A server of the application on the loopback address, listening already; port 0 takes a free one.

    Raises:
        InputError: the port is in use, or not ours to take.
    """
    try:
        return make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            line = f"port {port} is in use: name another with --port, or --port 0 for a free one"
            raise InputError(line) from None
        if error.errno == errno.EACCES:
            raise InputError(f"port {port} needs more rights: name one from 1024 up with --port") from None
        raise


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's news."""


def _text(start: StartResponse, status: str, line: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    return _send(start, status, "text/plain; charset=utf-8", f"{line}\n", *headers)


def _send(
    start: StartResponse, status: str, kind: str, content: str, *headers: tuple[str, str], head: bool = False
) -> Iterable[bytes]:
    body = content.encode("utf-8")
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [] if head else [body]
