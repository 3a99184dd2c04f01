"""Optuna Dashboard behind our gate: all of it to look at, and to change where the server was started for that."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, BinaryIO
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import bottle  # type: ignore[import-untyped]  # it ships no types
import optuna_dashboard
from a2wsgi import WSGIMiddleware
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from starlette.types import ASGIApp

from dashboards.rows import without_formulas

# What its pages were seen to need: styles are written into the page by its script, and the parallel coordinates
# compile their shaders' code at run time.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " object-src 'none'; base-uri 'none'; form-action 'self'"
)
# Files that people upload there are shown as what they say they are, and could be pages with scripts.
ARTIFACT_POLICY = "default-src 'none'; sandbox"


class _Found:
    """An artifact store as Optuna Dashboard should see it: it answers 500 to what is missing, were it not told 404."""

    def __init__(self, store: Any) -> None:
        self.write, self.remove = store.write, store.remove
        self._store = store

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            found: BinaryIO = self._store.open_reader(artifact_id)
        except ArtifactNotFound:
            raise bottle.HTTPError(404, "there is no such artifact") from None
        return found


def application(storage: BaseStorage, store: Any, *, writable: bool) -> ASGIApp:
    """Optuna Dashboard as an ASGI application; it owns the root of its address.

    Args:
        storage: What it shows.
        store: The artifact store.
        writable: Let it rename, delete, tell and upload.
    """
    dashboard: WSGIApplication = optuna_dashboard.wsgi(storage, artifact_store=_Found(store))
    return WSGIMiddleware(_tamed(dashboard, writable))  # type: ignore[arg-type, return-value]  # its types are its own


def _tamed(dashboard: WSGIApplication, writable: bool) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and not writable:
            line = b"This dashboard only shows: start it with `sizer dashboard --writable` to change anything.\n"
            kind = ("Content-Type", "text/plain; charset=utf-8")
            start("405 Method Not Allowed", [kind, ("Content-Length", str(len(line))), ("Allow", "GET, HEAD")])
            return [line]
        # Its static files answer 500 to a request that does not name its encodings.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
        environ["wsgi.errors"] = sys.stderr
        if environ.get("PATH_INFO", "").lstrip("/").startswith("csv/"):
            return _quoted(dashboard, environ, start)
        # What fails it has written down itself; the server would do so again.
        return dashboard(environ, lambda status, headers, *error: start(status, headers))

    return answer


def _quoted(dashboard: WSGIApplication, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    """Its CSV, in which what trials say may look like a formula."""
    told: list[Any] = []

    def hold(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        told[:] = [status, headers]

    content = b"".join(dashboard(environ, hold))
    status, headers = told
    if status.startswith("200") and content:
        content = without_formulas(content.decode("utf-8")).encode("utf-8")
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Content-Length", str(len(content))))
    start(status, headers)
    return [content]
