"""What travels with a job, what it is called, and what is refused before a cluster is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from sizer.errors import InputError
from studies import jobs
from studies.plan import Plan
from studies.reading import read_plan
from tests.studies.sweeps import small_plan

PLAN = """
name = "own"
data = "numbers.npz"
network = "nets.mine:net"
epochs = 1
trials = 1
[arms.fixed]
widths = { low = 4, high = 16 }
"""
NET = """
import math
from torch import nn
from nets.sizes import HIDDEN

def net(input_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))
"""


@pytest.fixture
def own(tmp_path: Path) -> Plan:
    """A plan with a network and data of one's own."""
    folder = tmp_path / "home"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "mine.py").write_text(NET)
    (folder / "nets" / "sizes.py").write_text("HIDDEN = 12\n")
    (folder / "own.toml").write_text(PLAN)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)).astype("float32"), np.arange(60) % 3
    np.savez(folder / "numbers.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    (plan,) = read_plan(folder / "own.toml")
    return plan


def test_what_travels_gives_the_same_study_elsewhere(own: Plan, tmp_path: Path) -> None:
    job = tmp_path / "job"
    job.mkdir()
    jobs._pack([own], job)
    spec, name = own.spec(), jobs._named([own], "own", None)
    data = f"data-{spec['data_sha256'][:16]}.npz"
    assert sorted(str(path.relative_to(job)) for path in job.rglob("*.*")) == [
        data, "nets/__init__.py", "nets/mine.py", "nets/sizes.py", "plan.toml",
    ]  # fmt: skip
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    (there,) = read_plan(job / "plan.toml")
    assert there.spec() | {"data": own.data} == spec
    assert there.code("network") is not None
    assert jobs._named([there], "own", None) == name


def test_a_study_has_one_name_and_another_study_another() -> None:
    def name(db: str | None = None, called: str = "a/b", **values: object) -> str:
        return jobs._named([small_plan(**values)], called, db)

    same = name()
    assert same.startswith("sizer-a-b-")
    assert name(trials=7, description="more of it") == same
    others = {name(epochs=4), name(db="postgresql://h/d"), name(seed=1), name(called="c")}
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    ("db", "says"),
    [
        (
            "results.db",
            "results.db is a file of this machine: give the database's URL, or a path that the cluster sees",
        ),
        ("postgresql://me:hush@h/d", "postgresql://me:***@h/d would show its password to whoever sees the job"),
        ("postgresql://me@h/d?password=hush", "postgresql://me@h/d?password=*** would show its password"),
    ],
)
def test_a_database_that_a_job_cannot_have_is_refused(db: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        jobs.hand_over([small_plan()], "http://127.0.0.1:1", db, "small", {})
    assert str(caught.value).startswith(says)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_a_job_cannot_have_are_refused() -> None:
    for files, says in (("here", "here is a folder of this machine"), ("s3://key:hush@b", "s3://b: a place for files")):
        with pytest.raises(InputError) as caught:
            jobs.hand_over([small_plan()], "http://127.0.0.1:1", None, "small", {"files": files})
        assert str(caught.value).startswith(says)
        assert "hush" not in str(caught.value)


def test_a_large_file_does_not_travel(own: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LARGEST", 100)
    with pytest.raises(InputError, match=r"numbers.npz has 0 MiB, and 0 travel with a job: put it where every node"):
        jobs.hand_over([own], "http://127.0.0.1:1", None, "own", {})


class _Site(BaseHTTPRequestHandler):
    """A server of something else, which wants a password where it is asked for jobs."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/elsewhere/api/version" else 401)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_where_no_jobs_are_taken_is_one_line(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for address, says in (
        ("http://127.0.0.1:9", "no Ray takes jobs at http://127.0.0.1:9 ("),
        ("127.0.0.1:8265", "127.0.0.1:8265 is nowhere that a cluster takes jobs: give http://HOST:8265"),
        ("ray://127.0.0.1:10001", "ray://127.0.0.1:10001 is nowhere that a cluster takes jobs"),
        (f"{site}/elsewhere", f"what listens at {site}/elsewhere is no Ray that takes jobs (status 200)"),
        (site, f"the Ray at {site} wants a token: set RAY_AUTH_MODE=token"),
        ("http://192.0.2.1:8265", "http://192.0.2.1:8265 is a cluster of other machines, and RAY_AUTH_MODE is not"),
    ):
        with pytest.raises(InputError) as caught:
            jobs.hand_over([small_plan()], address, None, "small", {})
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)


def test_a_job_wants_a_database_that_outlives_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.check_inside("sizer.db", None)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"py_modules": ["gcs://x.zip"]}}))
    assert jobs.brought_code()
    jobs.check_inside("postgresql://h/d", "s3://bucket")
    jobs.check_inside("/shared/sizer.db", None)
    with pytest.raises(InputError, match="this job has no database: set SIZER_DB where the cluster's head is started"):
        jobs.check_inside("sizer.db", "/shared")
    for files in (None, "here"):
        with pytest.raises(InputError, match="this job has no place for its files: set SIZER_FILES where the cluster"):
            jobs.check_inside("postgresql://h/d", files)
