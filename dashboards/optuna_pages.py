"""Optuna Dashboard behind our gate: all of it to look at, and to change where the server was started for that.

Its pages get a link to ours. A study that is too large for its page says so, and leads to ours.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import bottle  # type: ignore[import-untyped]  # it ships no types
import optuna_dashboard
from a2wsgi import WSGIMiddleware
from optuna.artifacts.exceptions import ArtifactNotFound
from starlette.types import ASGIApp

from dashboards import pages
from dashboards.rows import without_formulas
from studies import progress
from studies.database import Database

# What its pages were seen to need: styles are written into the page by its script, and the parallel coordinates
# compile their shaders' code at run time.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:;"
    " object-src 'none'; base-uri 'none'; form-action 'self'"
)
# Files that people upload there are shown as what they say they are, and could be pages with scripts.
ARTIFACT_POLICY = "default-src 'none'; sandbox"
MOST = 5_000
"""Trials of a study that its page bears; of 100,000 it is 57 MB and takes up to 48 seconds."""
LINK = (
    '<a href="/" style="position:fixed;right:14px;bottom:10px;z-index:2000;padding:4px 10px;border-radius:6px;'
    "background:#0b5cad;color:#fff;font:14px system-ui,sans-serif;text-decoration:none\">To sizer's pages</a>"
)
_STUDY = re.compile(r"/(dashboard|api)/studies/(\d+)(?:/|$)")
_ANYWAY = "large-study"


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


def application(database: Database, store: Any, *, writable: bool) -> ASGIApp:
    """Optuna Dashboard as an ASGI application; its addresses are absolute.

    Args:
        database: What it shows.
        store: The artifact store.
        writable: Let it rename, delete, tell and upload.
    """
    dashboard: WSGIApplication = optuna_dashboard.wsgi(database.storage, artifact_store=_Found(store))
    tamed = _tamed(_linked(dashboard, database), writable)
    return WSGIMiddleware(tamed)  # type: ignore[arg-type, return-value]  # its types are its own


def _linked(dashboard: WSGIApplication, database: Database) -> WSGIApplication:
    """With a link to our pages on each of its own, and a warning before a study that is too large."""

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] == "GET" and (found := _STUDY.match(path)):
            study = progress.study(database, int(found[2]))
            if study is not None and study.trials > MOST and not _insists(environ, study):
                return _too_large(study, environ, start, page=found[1] == "dashboard")
        if path != "/dashboard" and not path.startswith("/dashboard/"):
            return dashboard(environ, start)
        return _rewritten(dashboard, environ, start, lambda text: text.replace("</body>", f"{LINK}</body>", 1))

    return answer


def _insists(environ: WSGIEnvironment, study: progress.Study) -> bool:
    """Whether somebody has been told how large it is, and wants to see it nevertheless."""
    return f"{_ANYWAY}-{study.study_id}=1" in environ.get("HTTP_COOKIE", "")


def _too_large(study: progress.Study, environ: WSGIEnvironment, start: StartResponse, *, page: bool) -> Iterable[bytes]:
    line = f"{study.name} has {study.trials:,} trials; Optuna Dashboard loads all of them at once, which takes a while"
    if not page:
        return _answered(start, "413 Content Too Large", "application/json", json.dumps({"reason": line}))
    anyway = f"{_ANYWAY}={study.study_id}"
    if environ.get("QUERY_STRING", "") == anyway:
        cookie = f"{_ANYWAY}-{study.study_id}=1; Path=/; HttpOnly; SameSite=Strict"
        headers = [("Location", environ["PATH_INFO"]), ("Set-Cookie", cookie), ("Content-Length", "0")]
        start("303 See Other", headers)
        return []
    shown = pages.Page(
        "message.html", f"sizer: {study.name}",
        {"here": "", "heading": study.name, "line": f"{line}.", "remedies": (),
         "links": [(pages.evaluation_path(study.plan), "Our page of its evaluation") if study.plan
                   else ("/", "To the overview"), (f"?{anyway}", "Open it in Optuna Dashboard nevertheless")]},
    )  # fmt: skip
    return _answered(start, "200 OK", "text/html", shown.render())


def _answered(start: StartResponse, status: str, kind: str, text: str) -> Iterable[bytes]:
    content = text.encode()
    start(status, [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(content)))])
    return [content]


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
            # What trials say may look like a formula.
            return _rewritten(dashboard, environ, start, without_formulas)
        # What fails it has written down itself; the server would do so again.
        return dashboard(environ, lambda status, headers, *error: start(status, headers))

    return answer


def _rewritten(
    dashboard: WSGIApplication, environ: WSGIEnvironment, start: StartResponse, change: Callable[[str], str]
) -> Iterable[bytes]:
    """What it answers, its text changed."""
    told: list[Any] = []
    environ.pop("HTTP_IF_MODIFIED_SINCE", None)

    def hold(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        told[:] = [status, headers]

    parts = dashboard(environ, hold)
    try:
        content = b"".join(parts)
    finally:
        getattr(parts, "close", lambda: None)()
    status, headers = told
    if status.startswith("200") and content:
        content = change(content.decode("utf-8")).encode("utf-8")
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Content-Length", str(len(content))))
    start(status, headers)
    return [content]
