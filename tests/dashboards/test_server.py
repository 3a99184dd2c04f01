"""Optuna Dashboard, the reports and the API stand beside each other on one address of this machine."""

import io
import shutil
import socket
from pathlib import Path

import optuna
import pandas as pd
import psycopg
import pytest

from dashboards import optuna_pages
from dashboards.server import listen
from sizer.errors import InputError
from studies import query
from studies.database import locate
from studies.driver import Driver
from studies.lease import Lease
from tests.dashboards.served import READ, WRITE, Served, served
from tests.dashboards.swept import small_plan, sweep_here
from tests.postgres import Postgres
from tests.studies.sweeps import Seen


def test_optuna_dashboard_and_its_files_are_there(service: Served) -> None:
    assert "<title>Optuna Dashboard</title>" in service.ask("/dashboard").text
    names = {study["study_name"] for study in service.ask("/api/studies").json()["study_summaries"]}
    assert names == {"small/shrinknets", "small/fixed"}


def test_its_bundle_comes_to_a_client_that_names_no_encodings(service: Served) -> None:
    bundle = service.ask("/dashboard").text.partition('src="/static/')[2].partition('"')[0]
    request = f"GET /static/{bundle} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {READ}"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as raw:
        raw.sendall(f"{request}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert len(answer) > 100_000


@pytest.mark.parametrize("path", ["/", "/evaluation/small", "/trial/1", "/knob/small", "/report/small"])
def test_our_pages_stand_beside_it(service: Served, path: str) -> None:
    page = service.ask(path)
    assert (page.status_code, "small" in page.text) == (200, True)
    head = service.ask(path, method="HEAD")
    assert (head.status_code, head.content) == (200, b"")


def test_a_page_that_has_not_changed_is_not_sent_again(service: Served) -> None:
    page = service.ask("/evaluation/small")
    assert service.status("/evaluation/small", headers={"If-None-Match": page.headers["etag"]}) == 304


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/report/%3Cnobody%3E", "there are: small"),
        ("/evaluation/nobody", "there are: small"),
        ("/knob/small?arm=fixed", "there are: shrinknets"),
        ("/trial/999", "the database has no trial 999"),
        ("/trial/one", "is no trial: they are numbered"),
        ("/assets/nothing.js", "there is no file"),
    ],
)
def test_what_is_not_there_is_said_on_a_page(service: Served, path: str, says: str) -> None:
    missing = service.ask(path)
    assert (missing.status_code, says in missing.text) == (404, True)
    assert '<a href="/">To the overview</a>' in missing.text


def test_an_empty_database_says_how_to_fill_it(tmp_path: Path) -> None:
    locate(tmp_path / "empty.db")[0].create()
    with served(tmp_path / "empty.db") as server:
        page = server.ask("/").text
        assert "Nothing here yet" in page
        assert "sizer sweep demo" in page


def test_what_the_server_may_not_read_is_said_on_a_page(postgres: Postgres) -> None:
    url = postgres.create()
    locate(url)[0].create()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create role guest login password 'guest-has-one'")
        connection.execute("grant select on all tables in schema public to guest")
    guest = url.replace("sizer:", "guest:", 1).replace(url.partition("sizer:")[2].partition("@")[0], "guest-has-one")
    with served(guest) as server:
        assert server.status("/") == 200
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("revoke select on sizer_plans from guest")
        page = server.ask("/")
        assert page.status_code == 503
        assert "permission denied" in page.text
        assert "GRANT SELECT" in page.text
        assert "guest-has-one" not in page.text


def test_somebody_elses_study_is_listed_and_leads_to_optuna_dashboard(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    database = locate(tmp_path / "sizer.db")[0]
    study = optuna.create_study(storage=database.storage, study_name="theirs")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with served(tmp_path / "sizer.db") as server:
        page = server.ask("/").text
        assert f'<a href="/dashboard/studies/{study._study_id}">theirs</a>,\n2 trials' in page
        theirs = server.ask(f"/trial/{study.trials[0]._trial_id}")
        assert (theirs.status_code, "which is no evaluation of sizer" in theirs.text) == (404, True)


def test_a_failed_trial_says_why_and_one_that_runs_that_it_does(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    sweep_here(small_plan(name="more", trials=2), tmp_path / "sizer.db", trials=2)
    database = locate(tmp_path / "sizer.db")[0]
    with Lease(database, "more") as lease:
        driver = Driver(small_plan(name="more", trials=2), database, lease, Seen())
        driver.begin(query.data(database, "more"))
        member = driver.next()
        assert member is not None
        with served(tmp_path / "sizer.db") as server:
            runs = server.ask(f"/trial/{member['trial_id']}").text
            assert "It has begun; no epoch has ended yet." in runs
            assert "epoch 0 of\n3" in server.ask("/").text
            trials = query.trials(database, "small")
            failed = trials[trials["state"] == "FAIL"].iloc[0]
            page = server.ask(f"/trial/{failed['trial_id']}").text
            assert "the loss became NaN in epoch 1" in page
            assert "It gave no network." in page


def test_a_study_that_is_too_large_for_optuna_dashboard_says_so_and_leads_to_ours(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(optuna_pages, "MOST", 2)
    with served(tmp_path / "sizer.db") as server:
        page = server.ask("/dashboard/studies/1")
        assert "small/shrinknets has 3 trials" in page.text
        assert '<a href="/evaluation/small">' in page.text
        answer = server.ask("/api/studies/1")
        assert (answer.status_code, "has 3 trials" in answer.json()["reason"]) == (413, True)
        anyway = server.ask("/dashboard/studies/1?large-study=1")
        cookie = {"Cookie": anyway.headers["set-cookie"].partition(";")[0]}
        assert (anyway.status_code, anyway.headers["location"]) == (303, "/dashboard/studies/1")
        assert server.status("/api/studies/1", headers=cookie) == 200
        assert "<title>Optuna Dashboard</title>" in server.ask("/dashboard/studies/1", headers=cookie).text


def test_tables_come_as_parquet_too(service: Served) -> None:
    for name in ("trials", "history"):
        told = pd.read_parquet(io.BytesIO(service.ask(f"/v1/{name}?plan=small&format=parquet").content))
        same = pd.read_csv(io.BytesIO(service.ask(f"/v1/{name}?plan=small&format=csv").content))
        assert list(told["parameters"].dropna()) == list(same["parameters"].dropna())
        assert list(told["widths"]) == list(same["widths"])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_optuna_dashboard_changes_nothing_unless_the_server_was_started_for_that(service: Served, method: str) -> None:
    answer = service.ask("/api/studies/1", WRITE, method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "--writable" in answer.text
    assert service.status("/api/studies/1") == 200


def test_writable_lets_changes_pass_for_who_may_write(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    with served(tmp_path / "sizer.db", writable=True) as writable:
        assert writable.status("/api/studies/2", READ, "DELETE") == 403
        assert writable.status("/api/studies/2") == 200
        assert writable.status("/api/studies/2", WRITE, "DELETE", headers={"Origin": writable.url}) == 204
        assert writable.status("/api/studies/2") == 404


def test_it_listens_on_the_loopback_address_only(service: Served) -> None:
    addresses = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    assert f"0100007F:{service.port:04X}" in addresses
    assert f"00000000:{service.port:04X}" not in addresses


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use: name another with --port"):
            listen("127.0.0.1", port)
    with pytest.raises(InputError, match=r"'192\.0\.2\.1' is no address of this machine"):
        listen("192.0.2.1", 0)


def test_a_database_that_is_gone_is_said_and_not_waited_for(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.parent, tmp_path, dirs_exist_ok=True)
    with served(tmp_path / "sizer.db") as running:
        assert running.ask("/v1/health", None).json()["status"] == "ok"
        running.database.engine.dispose()
        for file in tmp_path.glob("sizer.db*"):
            file.unlink()
        (tmp_path / "sizer.db").mkdir()
        health = running.ask("/v1/health", None)
        assert (health.status_code, health.json()["status"]) == (503, "degraded")
        answer = running.ask("/v1/plans")
        assert (answer.status_code, "refused" in answer.json()["detail"]) == (503, True)
