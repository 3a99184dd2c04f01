"""Optuna Dashboard is served to this machine alone, and changes nothing unless asked to."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest

from dashboards.server import application, server
from sizer.errors import InputError


def report(name: str) -> str:
    if name != "search/mlp":
        raise InputError(f"unknown plan {name!r}; there are: search/mlp")
    return "<h1>search/mlp</h1>"


@contextmanager
def served(folder: Path, writable: bool = False) -> Iterator[tuple[http.client.HTTPConnection, optuna.Study]]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'one.db'}")
    study = optuna.create_study(storage=storage, study_name="demo/fixed")
    app = application(storage, folder / "artifacts", report=report, writable=writable)
    with server(app, port=0) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", listening.server_port, timeout=20)
        try:
            yield connection, study
        finally:
            connection.close()
            listening.shutdown()
            thread.join()
            storage.remove_session()
            storage.engine.dispose()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, **headers: str
) -> tuple[int, str, http.client.HTTPMessage]:
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def test_the_dashboard_and_its_files_are_there(tmp_path: Path) -> None:
    with served(tmp_path) as (connection, _):
        status, page, _ = ask(connection, "GET", "/dashboard")
        assert (status, "<title>Optuna Dashboard</title>" in page) == (200, True)
        status, studies, _ = ask(connection, "GET", "/api/studies")
        assert [study["study_name"] for study in json.loads(studies)["study_summaries"]] == ["demo/fixed"]
        bundle = page.partition('src="/static/')[2].partition('"')[0]
        # As a client asks that names no encodings.
        connection.putrequest("GET", f"/static/{bundle}", skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 100_000) == (200, True)


def test_reports_stand_beside_it(tmp_path: Path) -> None:
    with served(tmp_path) as (connection, _):
        assert ask(connection, "GET", "/report/search/mlp")[:2] == (200, "<h1>search/mlp</h1>")
        with socket.create_connection(("127.0.0.1", connection.port), timeout=20) as raw:
            raw.sendall(b"HEAD /report/search/mlp HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.0 200 OK")
        assert answer.endswith(b"Content-Length: 19\r\n\r\n")
        status, line, _ = ask(connection, "GET", "/report/%3Cnobody%3E")
        assert (status, "there are: search/mlp" in line) == (404, True)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_that_would_change_the_database_passes(tmp_path: Path, method: str) -> None:
    with served(tmp_path) as (connection, study):
        status, line, headers = ask(connection, method, f"/api/studies/{study._study_id}")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert "--writable" in line
        assert ask(connection, "GET", f"/api/studies/{study._study_id}")[0] == 200


def test_writable_lets_changes_pass_but_not_from_another_site(tmp_path: Path) -> None:
    with served(tmp_path, writable=True) as (connection, study):
        path = f"/api/studies/{study._study_id}"
        assert ask(connection, "DELETE", path, Origin="http://evil.example")[0] == 403
        assert ask(connection, "GET", path)[0] == 200
        assert ask(connection, "DELETE", path, Origin=f"http://127.0.0.1:{connection.port}")[0] == 204
        assert ask(connection, "GET", path)[0] == 404


def test_a_request_under_another_name_is_refused(tmp_path: Path) -> None:
    """A page elsewhere whose name was made to point here (DNS rebinding) reads nothing."""
    with served(tmp_path) as (connection, _):
        assert ask(connection, "GET", "/api/studies", Host="evil.example:8080")[0] == 403
        assert ask(connection, "GET", "/api/studies", Host="localhost:8080")[0] == 200


def test_it_listens_on_the_loopback_address_only(tmp_path: Path) -> None:
    with served(tmp_path) as (connection, _):
        assert connection.host == "127.0.0.1"
    with server(lambda environ, start: [], port=0) as listening:
        assert listening.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_said_in_one_line() -> None:
    with (
        server(lambda environ, start: [], port=0) as first,
        pytest.raises(InputError, match=f"port {first.server_port} is in use: name another with --port"),
    ):
        server(lambda environ, start: [], port=first.server_port)
