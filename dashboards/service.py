"""All that `sizer dashboard` serves on one address: our pages, the API, the reports, and Optuna Dashboard.

Optuna Dashboard has the addresses that it counts on, which are absolute; the root is our overview.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboards import api, commands, optuna_pages, page, pages
from dashboards.gate import Gate, Keys
from dashboards.pages.evaluation import evaluation
from dashboards.pages.knob import knob
from dashboards.pages.overview import overview
from dashboards.pages.trial import trial
from dashboards.source import Local
from sizer.errors import SizerError, UnknownNameError
from studies.artifacts import Artifacts
from studies.database import Database
from studies.launch import ChangedPlanError, Submissions
from studies.outages import RefusedError

LARGEST = 2**31 - 1
LOOPBACK = ("localhost", "127.0.0.1", "::1")
REPORT, ASSETS = "/report/", "/assets/"
KEPT = 8
"""Evaluations whose pages are kept until they change; of 5,000 trials one is 6 MB."""
OURS = (REPORT, ASSETS, "/evaluation/", "/trial/", "/knob/")
"""What our own addresses begin with, beside the root and the API."""
_API_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'"
_REMEDIES: dict[int, tuple[str, ...]] = {
    503: (
        "`sizer db check` says more. Of a PostgreSQL the role that this server has needs to read all tables:"
        " GRANT SELECT ON ALL TABLES IN SCHEMA public TO that role.",
    )
}
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
    app.state.evaluations = {}
    app.state.submissions = submissions or Submissions(database)
    app.include_router(api.public)
    app.include_router(api.router)
    for path, answer in (
        ("/", _overview), ("/evaluation/{plan:path}", _evaluation), ("/trial/{trial_id}", _trial),
        ("/knob/{plan:path}", _knob), (f"{ASSETS}{{name}}", _asset), (f"{REPORT}{{plan:path}}", _report),
    ):  # fmt: skip
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False, response_class=Response)
    for error, status in _STATUS.items():
        app.add_exception_handler(error, _told(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _broken)
    store = Artifacts(database)
    app.router.default = _beside(optuna_pages.application(database, store, writable=writable))
    return Gate(app, keys, names, _policy)


def _at_once(line: str) -> None:
    """A page is not kept waiting for minutes."""
    raise RefusedError("the database does not answer: try again")


def _beside(dashboard: ASGIApp) -> ASGIApp:
    """Whatever is nobody else's is Optuna Dashboard's, but for what is missing under our own paths."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/v1"):
            raise HTTPException(404, "there is no such route: /openapi.json lists them")
        if f"{scope['path']}/".startswith(OURS):
            raise UnknownNameError(f"there is no page {scope['path']}: the overview links to all")
        await dashboard(scope, receive, send)

    return answer


def _policy(path: str) -> str:
    if path.startswith(REPORT):
        return page.policy()
    if path.lstrip("/").startswith("artifacts/"):
        return optuna_pages.ARTIFACT_POLICY
    if path.startswith("/v1/") or path == "/openapi.json":
        return _API_POLICY
    return pages.POLICY if path == "/" or path.startswith(OURS) else optuna_pages.POLICY


def _overview(request: Request) -> Response:
    return _shown(request, overview(_source(request), request.app.state.submissions))


def _evaluation(plan: str, request: Request) -> Response:
    """The page; of an evaluation that stands where it stood, what was made of it then."""
    source, kept = _source(request), request.app.state.evaluations
    stands = (source.standing(plan), source.spec(plan))
    if plan not in kept or kept[plan][0] != stands:
        kept.pop(plan, None)
        while len(kept) >= KEPT:
            del kept[next(iter(kept))]
        kept[plan] = (stands, evaluation(source, plan).render())
    return _sent(request, kept[plan][1])


def _trial(trial_id: str, request: Request, beside: Annotated[list[int] | None, Query()] = None) -> Response:
    if not trial_id.isdecimal() or int(trial_id) > LARGEST:
        raise UnknownNameError(f"{trial_id!r} is no trial: they are numbered")
    return _shown(request, trial(_source(request), int(trial_id), beside))


def _knob(plan: str, request: Request, arm: str | None = None) -> Response:
    return _shown(request, knob(_source(request), plan, arm))


def _asset(name: str) -> Response:
    try:
        content, kind = pages.asset(name)
    except KeyError:
        raise UnknownNameError(f"there is no file {name!r} of the pages") from None
    return Response(content, media_type=kind, headers={"Cache-Control": "private, max-age=600"})


def _report(plan: str, request: Request) -> Response:
    source = _source(request)
    return HTMLResponse(commands.report(source, commands.chosen(source, plan)))


def _source(request: Request) -> Local:
    return Local(request.app.state.database)


def _shown(request: Request, found: pages.Page) -> Response:
    """The page, or that it is the one which the reader has."""
    return _sent(request, found.render())


def _sent(request: Request, text: str) -> Response:
    tag = pages.tag(text)
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(text, headers={"ETag": tag})


def _told(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return _problem(request, status, str(error))

    return answer


def _problem(request: Request, status: int, line: str) -> Response:
    """Why there is no answer: a page to who looks at pages, a line to who asks the API."""
    if request.url.path.startswith("/v1/"):
        return _line(status, line)
    heading = {404: "There is no such thing", 503: "The database does not answer"}.get(status, "That cannot be shown")
    values = {
        "heading": heading,
        "line": line,
        "remedies": _REMEDIES.get(status, ()),
        "links": [("/", "To the overview")],
    }
    return HTMLResponse(pages.Page("message.html", f"sizer: {heading}", values).render(), status)


def _invalid(request: Request, error: Exception) -> Response:
    first: dict[str, Any] = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ())[1:])
    message = str(first.get("msg", "wrong")).removeprefix("Value error, ")
    return _problem(request, 422, f"{where}: {message}" if where else message)


def _broken(request: Request, error: Exception) -> Response:
    return _problem(request, 500, "that failed here: the server's log says how")


def _line(status: int, line: str) -> Response:
    return JSONResponse({"detail": " ".join(line.split())}, status)
