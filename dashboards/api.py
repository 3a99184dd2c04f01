"""The service's routes under /v1: what the command line can ask a database, as JSON, and plans to submit and to stop.

A plan's name may hold a `/`, so it is a query parameter everywhere. Whoever gets here has passed `dashboards.gate`.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Annotated, Any, Literal

import pandas as pd
import safetensors.torch
from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from torch import Tensor

from dashboards import models, rows
from dashboards.exporting import exported
from dashboards.gate import LARGEST
from dashboards.source import Local
from sizer import Architecture
from sizer.errors import InputError, unknown
from studies import selection
from studies.launch import Submissions
from studies.plan import Plan
from studies.reading import read_submitted
from studies.standing import STARTING, STOPPED, Standing

VERSION = version("sizer")
_LARGEST = 2**31 - 1


class SubmittedPlanError(InputError):
    """A plan that was sent and cannot be run as it stands."""


class NothingToStopError(InputError):
    """Nobody runs what should stop."""


def _local(request: Request) -> Local:
    return Local(request.app.state.database)


def _submissions(request: Request) -> Submissions:
    found: Submissions = request.app.state.submissions
    return found


def _refusal(description: str) -> dict[str, Any]:
    return {"model": models.Problem, "description": description}


_bearer = HTTPBearer(auto_error=False, description="The read token, or the write token, which also reads.")
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusal("It cannot be done; the line says why."),
    401: _refusal("No token was sent, or one that is not known."),
    403: _refusal("The token only reads, or the request names another server or comes from another's page."),
    404: _refusal("There is no such plan, arm, trial or epoch."),
    413: _refusal("The request is larger than any plan."),
    422: _refusal("A parameter is missing or wrong."),
    503: _refusal("The database does not answer."),
}
_PARQUET = "application/vnd.apache.parquet"
_TABLE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            _PARQUET: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "description": "A safetensors file; `Repr-Digest` is its SHA-256, as RFC 9530 writes it.",
    }
}
_ONNX: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
router = APIRouter(prefix="/v1", dependencies=[Security(_bearer)], responses=_REFUSALS, max_body_size=LARGEST)
public = APIRouter(prefix="/v1")

Source = Annotated[Local, Depends(_local)]
Started = Annotated[Submissions, Depends(_submissions)]
Name = Annotated[str, Query(pattern=models.NAME, max_length=models.LONGEST, description="The plan's name.")]
Arm = Annotated[
    str | None, Query(pattern=models.NAME, max_length=models.LONGEST, description="This arm only; all unless given.")
]
Limit = Annotated[int | None, Query(ge=1, lt=2**63, description="At most so many.")]
Time = Annotated[float | None, Query(gt=0, description="Milliseconds at most, where the worker timed networks.")]
Number = Annotated[int | None, Query(ge=0, le=_LARGEST, description="With the other, one epoch of one trial.")]
Format = Annotated[
    Literal["json", "csv", "parquet"],
    Query(description="`csv` for a spreadsheet, `parquet` for data frames; tables within cells are JSON in both."),
]


@public.get("/health", responses={503: {"model": models.Health, "description": "The database does not answer."}})
def health(source: Source, response: Response) -> models.Health:
    """Whether the service and its database answer; needs no token."""
    try:
        source.plan_names()
    except InputError:
        response.status_code = 503
        return models.Health(status="degraded", database=False, version=VERSION)
    return models.Health(status="ok", database=True, version=VERSION)


def _limits(max_params: Limit = None, max_flops: Limit = None, max_latency: Time = None) -> dict[str, float | None]:
    return {"max_params": max_params, "max_flops": max_flops, "max_latency": max_latency}


Limits = Annotated[dict[str, Any], Depends(_limits)]


@router.get("/plans")
def plans(source: Source, started: Started) -> list[models.Listed]:
    """The evaluations in the database, in the order they began; then those that are on their way."""
    known = [source.standing(name) for name in source.plan_names()]
    return [_listed(each) for each in [*known, *started.not_begun().values()]]


@router.get("/status")
def status(plan: Name, source: Source, started: Started) -> models.Standing:
    """Where an evaluation stands: trials by state, epochs done, who runs it, what failed and why."""
    found = started.not_begun().get(plan) or source.standing(plan)
    if found.state == STOPPED and (line := started.complaint(plan)):
        found = replace(found, driver=f"{found.driver}; its last run said: {line}")
    return models.Standing.model_validate(found)


@router.get("/trials", response_model=list[models.Trial], responses=_TABLE)
def trials(plan: Name, source: Source, format: Format = "json") -> Response:
    """One row a trial of every arm; its figures are those of its best validation epoch."""
    return _table(source.trials(plan), format, "trials")


@router.get("/history", response_model=list[models.Epoch], responses=_TABLE)
def history(plan: Name, source: Source, format: Format = "json") -> Response:
    """One row an epoch of every trial."""
    return _table(source.history(plan), format, "history")


@router.get("/spec")
def spec(plan: Name, source: Source) -> dict[str, Any]:
    """The plan as plain values."""
    return source.spec(plan)


@router.get("/data")
def data(plan: Name, source: Source) -> dict[str, Any]:
    """What the data was: task, shapes, rows, preprocessing."""
    return source.data(plan)


@router.get("/driver")
def driver(plan: Name, source: Source) -> models.Driver:
    """Who runs an evaluation now."""
    if plan not in (names := source.plan_names()):
        raise unknown("plan", plan, names)
    return models.Driver(driver=source.driver(plan))


@router.get("/best", response_model=models.Found)
def best(plan: Name, source: Source, limits: Limits, arm: Arm = None) -> Response:
    """The trial and epoch of highest validation accuracy, under a budget from the best epoch that fits it."""
    return JSONResponse(rows.plain(source.best(plan, arm, **limits).to_frame().T)[0])


@router.get("/front", response_model=list[models.Found], responses=_TABLE)
def front(plan: Name, source: Source, arm: Arm = None, format: Format = "json") -> Response:
    """The epochs that no other beats in validation accuracy at as few parameters, or at as few FLOPs."""
    return _table(source.front(plan, arm), format, "front")


def _network(
    plan: Name,
    source: Source,
    limits: Limits,
    trial_id: Number = None,
    epoch: Number = None,
    arm: Arm = None,
) -> tuple[Architecture, dict[str, Tensor]]:
    if (trial_id is None) != (epoch is None):
        raise InputError("give trial_id and epoch, or neither")
    if trial_id is None or epoch is None:
        return source.architecture(plan, source.best(plan, arm, **limits))
    return source.architecture(plan, selection.epoch(source.database, plan, trial_id, epoch))


Network = Annotated[tuple[Architecture, dict[str, Tensor]], Depends(_network)]


@router.get("/architecture")
def architecture(network: Network) -> models.Architecture:
    """The architecture of one epoch of a trial; unless one is named, of that which `best` chooses."""
    return models.Architecture.model_validate_json(network[0].to_json())


@router.get("/weights", response_class=Response, responses=_FILE)
def weights(network: Network) -> Response:
    """The weights that belong to `architecture`, once they were found to be those that were written."""
    content = safetensors.torch.save(network[1])
    headers = {
        "Content-Disposition": 'attachment; filename="weights.safetensors"',
        "Repr-Digest": models.repr_digest(content),
    }
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.get("/onnx", response_class=Response, responses=_ONNX)
def onnx(network: Network) -> Response:
    """The network with its weights as ONNX, for inputs scaled as `architecture` says; any number of them at once."""
    content = exported(*network)
    headers = {"Content-Disposition": 'attachment; filename="network.onnx"'}
    return Response(content, media_type="application/octet-stream", headers=headers)


@router.post(
    "/plans",
    status_code=202,
    responses={
        200: {"model": list[models.Submitted], "description": "Nothing was started: it runs already, or is done."},
        202: {"description": "Started."},
        409: _refusal("Another plan has that name; the line says what differs."),
    },
)
def submit(submission: models.Submission, started: Started, response: Response) -> list[models.Submitted]:
    """Starts a sweep and returns at once. A plan with cells is several; the same plan sent again is still one study."""
    states = started.submit(_read(submission))
    if STARTING not in states.values():
        response.status_code = 200
    return [models.Submitted.model_validate({"name": name, "state": state}) for name, state in states.items()]


@router.post("/stop", responses={409: _refusal("Nobody runs it.")})
def stop(plan: Name, source: Source, started: Started) -> models.Stopped:
    """Asks whoever runs a plan to end. It does within seconds; submitted again, it goes on where it was."""
    if plan not in (names := [*source.plan_names(), *started.not_begun()]):
        raise unknown("plan", plan, names)
    try:
        return models.Stopped(asked=started.stop(plan))
    except InputError as error:
        raise NothingToStopError(str(error)) from None


def _read(submission: models.Submission) -> list[Plan]:
    given, preset = submission.overrides.model_dump(exclude_none=True), submission.preset is not None
    try:
        return read_submitted(submission.preset or submission.plan or "", given, submission.scale, preset=preset)
    except InputError as error:
        raise SubmittedPlanError(str(error)) from None


def _listed(standing: Standing) -> models.Listed:
    planned = sum(arm.planned for arm in standing.arms)
    left = sum(arm.running + arm.waiting for arm in standing.arms)
    return models.Listed.model_validate(
        {"name": standing.name, "state": standing.state, "driver": standing.driver, "planned": planned,
         "ended": planned - left}
    )  # fmt: skip


def _table(frame: pd.DataFrame, format: str, name: str) -> Response:
    if format == "json":
        return Response(rows.to_json(frame), media_type="application/json")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format}"'}
    if format == "parquet":
        return Response(rows.to_parquet(frame), media_type=_PARQUET, headers=headers)
    return Response(rows.to_csv(frame), media_type="text/csv", headers=headers)
