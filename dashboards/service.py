"""All that `sizer dashboard` serves on one address: the API, the reports, and Optuna Dashboard at the root."""

from __future__ import annotations

from collections.abc import Callable, Collection
from html import escape
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboards import api, commands, optuna_pages, page
from dashboards.gate import Gate, Keys
from dashboards.source import Local
from sizer.errors import SizerError, UnknownNameError
from studies.artifacts import Artifacts
from studies.database import Database
from studies.launch import ChangedPlanError, Submissions
from studies.outages import RefusedError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
REPORT = "/report/"
_API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'"
_STATUS: dict[type[SizerError], int] = {
    SizerError: 400,
    RefusedError: 503,
    UnknownNameError: 404,
    ChangedPlanError: 409,
    api.NothingToStopError: 409,
    api.SubmittedPlanError: 422,
}


def application(
    database: Database,
    keys: Keys,
    *,
    names: Collection[str] = LOOPBACK,
    writable: bool = False,
    submissions: Submissions | None = None,
) -> Gate:
    """The service as an ASGI application; what stands behind its gate is `.app`, a FastAPI.

    Args:
        database: What it shows.
        keys: Who may read and who may write.
        names: The host names by which it may be asked.
        writable: Let Optuna Dashboard, too, change the database for who may write.
        submissions: Starts what is submitted; as processes of this machine unless given.
    """
    app = FastAPI(
        title="sizer",
        version=api.VERSION,
        description=api.__doc__ or "",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    database.waiting = _at_once
    app.state.database = database
    app.state.submissions = submissions or Submissions(database)
    app.include_router(api.public)
    app.include_router(api.router)
    app.add_api_route(REPORT, _reports, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route(f"{REPORT}{{plan:path}}", _report, methods=["GET", "HEAD"], include_in_schema=False)
    for error, status in _STATUS.items():
        app.add_exception_handler(error, _told(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    store = Artifacts(database)
    app.router.default = _beside(optuna_pages.application(database.storage, store, writable=writable))
    return Gate(app, keys, names, _policy)


def _at_once(line: str) -> None:
    """A page is not kept waiting for minutes."""
    raise RefusedError("the database does not answer: try again")


def _beside(dashboard: ASGIApp) -> ASGIApp:
    """Whatever is nobody else's is Optuna Dashboard's, but for what is missing under our own paths."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(("/v1", REPORT.rstrip("/"))):
            raise HTTPException(404, "there is no such route: /openapi.json lists them")
        await dashboard(scope, receive, send)

    return answer


def _policy(path: str) -> str:
    if path.startswith(REPORT):
        return page.policy()
    if path.lstrip("/").startswith("artifacts/"):
        return optuna_pages.ARTIFACT_POLICY
    return _API_POLICY if path.startswith("/v1/") or path == "/openapi.json" else optuna_pages.POLICY


def _reports(request: Request) -> Response:
    names = Local(request.app.state.database).plan_names()
    lines = "".join(f'<li><a href="{REPORT}{quote(name)}">{escape(name)}</a></li>' for name in names)
    return HTMLResponse(f"<!doctype html><title>sizer</title><h1>Reports</h1><ul>{lines}</ul>")


def _report(plan: str, request: Request) -> Response:
    source = Local(request.app.state.database)
    return HTMLResponse(commands.report(source, commands.chosen(source, plan)))


def _told(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return _line(status, str(error))

    return answer


def _invalid(request: Request, error: Exception) -> Response:
    first: dict[str, Any] = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ())[1:])
    message = str(first.get("msg", "wrong")).removeprefix("Value error, ")
    return _line(422, f"{where}: {message}" if where else message)


def _broken(request: Request, error: Exception) -> Response:
    return _line(500, "that failed here: the server's log says how")


def _line(status: int, line: str) -> Response:
    return JSONResponse({"detail": " ".join(line.split())}, status)
