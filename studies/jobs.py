"""Hands a sweep to a Ray cluster as a job, which goes on there without us; and what such a job finds around it.

The plan, the modules of the user's own functions and an .npz file travel as the job's working folder, our own code as
its py_modules. No environment travels: the database's password is the cluster's own affair.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from sizer import datasets
from sizer.errors import InputError
from studies import access, credentials
from studies.files import place_of
from studies.plan import Plan
from studies.reading import read_plan, written

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

LARGEST = 100 * 2**20
"""Bytes of a file of data that travels with a job."""
_ANSWERS_WITHIN = 5.0
_READY_WITHIN = 60.0
_LONGEST_LINE = 300
# Where Ray tells a job's driver what it was submitted with.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# Ray's client would go to these rather than to the address that it is given.
_ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


@dataclass(frozen=True)
class Job:
    """A job that runs, or will.

    Attributes:
        name: The id it was submitted under.
        fresh: Whether it was submitted now; else it was running already.
    """

    name: str
    fresh: bool


def submit(plan_toml: str, address: str, db: str | None, name: str) -> str:
    """Hands over the sweep of a plan, or of several cells, one after the other.

    Args:
        plan_toml: The plan.
        address: Where the cluster takes jobs, `http://HOST:8265`.
        db: The database, without a password; None for that of the cluster's own environment.
        name: What the job is called after.

    Returns:
        The job's id. The same plan has the same one for as long as it runs.

    Raises:
        InputError: The plan is wrong, or the cluster does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="sizer-plan-") as folder:
        file = Path(folder) / "plan.toml"
        file.write_text(plan_toml, encoding="utf-8")
        return hand_over(read_plan(file), address, db, name, {}).name


def hand_over(plans: Sequence[Plan], address: str, db: str | None, name: str, options: Mapping[str, Any]) -> Job:
    """Hands over the sweeps of plans, one after the other.

    Args:
        plans: One, or the cells of one.
        address: Where the cluster takes jobs.
        db: As `submit` takes it.
        name: As `submit` takes it.
        options: Options of `sizer sweep`, without their dashes; those that are None are left out.

    Raises:
        InputError: The cluster does not take it; or something cannot travel.
    """
    if db is not None:
        _check_database(db)
    if (files := options.get("files")) is not None:
        place_of(files)
        if not _stays(files):
            raise InputError(
                f"{files} is a folder of this machine: give --files a path that the cluster sees, or a URI"
            )
    with tempfile.TemporaryDirectory(prefix="sizer-job-") as folder:
        _pack(plans, Path(folder))
        given = {**options, "db": db}
        flags = [part for key, value in given.items() if value is not None for part in (f"--{key}", str(value))]
        entrypoint = shlex.join(["python", "-m", "dashboards", "sweep", "plan.toml", "--address", "auto", *flags])
        with _client(address) as client:
            return _submitted(client, _named(plans, name, db), entrypoint, folder)


def brought_code() -> bool:
    """Whether this process is the driver of a job that brought our code along."""
    return "py_modules" in json.loads(os.environ.get(_JOB, "{}")).get("runtime_env", {})


def check_inside(db: str, files: str | None) -> None:
    """Makes sure that a sweep which runs as a job has a database, and files, that outlive the job's folder.

    Raises:
        InputError: It has none.
    """
    if _JOB in os.environ and not _stays(db):
        raise InputError(
            "this job has no database: set SIZER_DB where the cluster's head is started, or give --db to `sizer submit`"
        )

    beside = db.startswith("sqlite:") or "://" not in db
    if _JOB in os.environ and not (beside if files is None else _stays(files)):
        raise InputError(
            "this job has no place for its files: set SIZER_FILES where the cluster's head is started, or give --files"
            " to `sizer submit`, as an absolute path or a URI"
        )


def _stays(db: str) -> bool:
    return "://" in db or Path(db).is_absolute()


def _check_database(db: str) -> None:
    if not _stays(db):
        raise InputError(f"{db} is a file of this machine: give the database's URL, or a path that the cluster sees")
    if (hidden := credentials.hidden(db)) != db:
        raise InputError(
            f"{hidden} would show its password to whoever sees the job: leave it out; the cluster's environment says it"
            f" ({credentials.FILE}, PGPASSFILE)"
        )


def _pack(plans: Sequence[Plan], folder: Path) -> None:
    """Writes what travels: the plans as one file, and what they name that is not installed."""
    moved = []
    for plan in plans:
        for field in ("network", "data"):
            code = plan.code(field)
            for name, source in (code.sources if code is not None else {}).items():
                path = folder.joinpath(*name.split("."))
                path = path / "__init__.py" if source.package else path.with_suffix(".py")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source.text, encoding="utf-8")
        moved.append(plan)
        file = datasets.file_of(plan.data)
        if file is not None:
            size = file.stat().st_size
            if size > LARGEST:
                raise InputError(
                    f"{plan.data} has {size / 2**20:.0f} MiB, and {LARGEST / 2**20:.0f} travel with a job: put it where"
                    " every node sees it, and name a function as data that reads it there"
                )
            name = f"data-{plan.spec()['data_sha256'][:16]}{file.suffix}"
            shutil.copyfile(file, folder / name)
            moved[-1] = plan.model_copy(update={"data": datasets.with_file(plan.data, name)})
    (folder / "plan.toml").write_text(written(moved), encoding="utf-8")


def _named(plans: Sequence[Plan], name: str, db: str | None) -> str:
    """The same for the same study: the plans as far as they may not change, and the database."""
    specs = []
    for plan in plans:
        spec = plan.spec()
        loose = {"trials", "description", *(["data"] if "data_sha256" in spec else [])}
        specs.append({key: value for key, value in spec.items() if key not in loose})
    digest = hashlib.sha256(json.dumps([specs, db], sort_keys=True).encode()).hexdigest()
    return f"sizer-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{digest[:12]}"


@contextmanager
def _client(address: str) -> Iterator[JobSubmissionClient]:
    """A client of a cluster that answers; what goes wrong is said in a line."""
    place = urlsplit(address)
    if place.scheme not in {"http", "https"} or not place.hostname:
        raise InputError(f"{address} is nowhere that a cluster takes jobs: give http://HOST:8265")
    if not access.is_loopback(place.hostname):
        access.require_token(address)
    _check_answers(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for handler in logging.getLogger("ray").handlers:  # its client tells of every package that it sends
        handler.setLevel(logging.ERROR)
    elsewhere = {key: os.environ.pop(key) for key in _ELSEWHERE if key in os.environ}
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError:
        raise InputError(access.refused(address)) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())[:_LONGEST_LINE]
        raise InputError(f"the Ray at {address} did not take the job: {line}") from None
    finally:
        os.environ.update(elsewhere)


def _check_answers(address: str) -> None:
    said = access.token()
    try:
        answer = httpx.get(
            f"{address.rstrip('/')}/api/version",
            headers={"Authorization": f"Bearer {said}"} if said else {},
            timeout=_ANSWERS_WITHIN,
        )
        known = "ray_version" in answer.text
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"no Ray takes jobs at {address} ({error or type(error).__name__}): the head's dashboard does, at its"
            " `--dashboard-host` and `--dashboard-port`"
        ) from None
    if answer.status_code in {401, 403}:
        raise InputError(access.refused(address))
    if answer.status_code != 200 or not known:
        raise InputError(f"what listens at {address} is no Ray that takes jobs (status {answer.status_code})")


def _submitted(client: JobSubmissionClient, name: str, entrypoint: str, folder: str) -> Job:
    from ray.job_submission import JobStatus

    from studies.cluster import EXCLUDED, code

    same = re.compile(rf"{re.escape(name)}(-\d+)?")
    jobs = {job.submission_id: job.status for job in client.list_jobs() if same.fullmatch(job.submission_id or "")}
    for known, status in jobs.items():
        if known is not None and status in {JobStatus.PENDING, JobStatus.RUNNING}:
            return Job(known, fresh=False)
    # Ray takes an id once.
    others = (f"{name}-{count}" for count in itertools.count(2))
    fresh = next(each for each in itertools.chain([name], others) if each not in jobs)
    travels = {"working_dir": folder, "py_modules": code("sizer", "studies", "dashboards"), "excludes": EXCLUDED}
    deadline = time.monotonic() + _READY_WITHIN
    while True:
        try:
            client.submit_job(entrypoint=entrypoint, submission_id=fresh, runtime_env=travels)
        except RuntimeError as error:
            if "already exists" in str(error):  # another has submitted the same at the same moment
                return Job(fresh, fresh=False)
            # A cluster that has just been started takes jobs some seconds later than it answers.
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1.0)
        else:
            return Job(fresh, fresh=True)
