"""A sweep that a server starts: a process of its own that outlives who asked, and ends when asked."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studies import launch, query
from studies.database import locate, named
from studies.launch import ChangedPlanError, Submissions
from studies.standing import standing
from tests.studies.sweeps import small_plan

pytestmark = pytest.mark.alone


@pytest.fixture
def submissions(tmp_path: Path) -> Iterator[Submissions]:
    database = locate(tmp_path / "one.db")[0]
    database.create()
    made = Submissions(database)
    yield made
    for _, launched in made._known.values():
        if launched.process is not None and launched.alive:
            launched.process.kill()
    database.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.soak
def test_a_submitted_sweep_runs_on_its_own_and_stops_when_asked(submissions: Submissions, tmp_path: Path) -> None:
    plan, database = small_plan(epochs=100_000), submissions._database
    assert submissions.submit([plan]) == {"small": "starting"}
    assert submissions.submit([plan]) == {"small": "running"}
    (_, launched) = submissions._known["small"]
    assert launched.process is not None
    command = Path(f"/proc/{launched.process.pid}/cmdline").read_text().replace("\0", " ")
    assert "sqlite" not in command
    assert "one.db " not in command
    assert os.getsid(launched.process.pid) == launched.process.pid
    until(lambda: "small" in query.plan_names(database))
    until(lambda: any(arm.epochs for arm in standing(database, "small").arms))
    assert submissions.not_begun() == {}
    # Another server, which did not start it, sees it by its lease.
    other = Submissions(database)
    assert other.submit([plan]) == {"small": "running"}
    with pytest.raises(ChangedPlanError, match="epochs: was 100000, now 3"):
        other.submit([small_plan()])
    assert f"process {launched.process.pid} on " in other.stop("small")
    assert launched.process.wait(timeout=60) == 130
    assert standing(database, "small").state == "stopped"
    assert "stopped from elsewhere" in submissions.complaint("small")


def test_a_sweep_that_cannot_begin_says_why(submissions: Submissions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZER_DATA", "/proc/none")
    submissions.submit([small_plan(data="mnist", epochs=1)])
    launched = submissions._known["small"][1]
    assert launched.process is not None
    # Where it stands decides where the files of a server's database go.
    assert Path(f"/proc/{launched.process.pid}/cwd").readlink() == Path.cwd()
    until(lambda: not launched.alive)
    said = submissions.not_begun()["small"]
    assert (said.state, "/proc/none" in said.driver) == ("failed", True)


def test_a_job_is_told_where_the_database_is_without_its_password() -> None:
    database = named("postgresql://sizer:s3cr3t@h/d")
    assert launch._url(database, password=False) == "postgresql+psycopg://sizer@h/d"
    assert "s3cr3t" in launch._url(database)
