"""Nothing is open that was not opened on purpose: tokens, names, origins, headers, and paths that lead elsewhere."""

import json
import re
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard._app import create_app
from starlette.routing import BaseRoute, Route

from dashboards.gate import PUBLIC, Keys, read_token
from sizer.errors import InputError
from studies.database import open_database
from tests.dashboards.served import READ, WRITE, Served, served

SECRET = "the content of a file that lies outside"


def ours(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """FastAPI's routes, those of included routers too."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            yield from ours(route.original_router.routes)  # type: ignore[attr-defined]  # an included router


def optunas() -> Iterator[Any]:
    """The routes of Optuna Dashboard's application."""
    return iter(create_app(optuna.storages.InMemoryStorage(), None).routes)


def routes(service: Served) -> list[tuple[str, str]]:
    """Method and path of every route, with something in each of its parameters."""
    found = [
        (method, re.sub(r"{\w+(:path)?}", "small", route.path))
        for route in ours(service.app.routes)
        for method in route.methods or ()
    ]
    assert len(found) > 15
    behind = [
        (route.method, re.sub(r"<[^>]*>", "x", re.sub(r"<\w+:int>", "1", re.sub(r"<\w*:re:.*?>+", "", route.rule))))
        for route in optunas()
    ]
    assert len(behind) > 30
    return found + behind


def test_no_route_is_open_without_a_token_but_for_the_public_ones(service: Served) -> None:
    every = routes(service)
    opened = [(method, path) for method, path in every if service.status(path, None, method) not in (401, 403)]
    assert set(opened) == {("GET", "/v1/health"), ("GET", "/openapi.json"), ("HEAD", "/openapi.json")}
    assert {path for _, path in opened} == set(PUBLIC)
    assert {"/v1/plans", "/v1/stop", "/report/small", "/api/studies", "/dashboard", "/static/x", "/csv/1"} <= {
        path for _, path in every
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong-0123456789abcdef"},
        {"Authorization": f"Bearer {READ[:-1]}"},
        {"Authorization": f"Bearer {READ}x"},
        {"Authorization": f"Basic {READ}"},
        {"Authorization": READ},
        {"Cookie": "sizer-{port}="},
        {"Cookie": f"sizer-{{port}}={READ}"},
        {"Cookie": "sizer-{port}=" + "0" * 64},
        {"Cookie": "sizer-{port}=zz"},
    ],
)
def test_what_is_no_token_opens_nothing(service: Served, headers: dict[str, str]) -> None:
    given = {name: value.replace("{port}", str(service.port)) for name, value in headers.items()}
    answer = service.ask("/v1/plans", None, headers=given)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "dashboards" not in answer.text


def test_a_missing_key_is_not_the_empty_token(trained: Path) -> None:
    for keys in (Keys.of(read=READ), Keys.of(write=WRITE), Keys()):
        assert [keys.role(digest) for digest in (b"", bytes(32))] == [None, None]
    with served(trained, keys=Keys.of(read=READ)) as only_read:
        assert only_read.status("/v1/plans", None) == 401
        assert only_read.status("/v1/stop?plan=small", "", "POST") == 401


def test_the_read_token_reads_and_the_write_token_writes(service: Served) -> None:
    for token in (READ, WRITE):
        assert service.status("/v1/plans", token) == 200
    refused = service.ask("/v1/stop?plan=small", READ, "POST")
    assert (refused.status_code, "write token" in refused.json()["detail"]) == (403, True)
    assert service.status("/v1/stop?plan=small", WRITE, "POST") == 409


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(service: Served) -> None:
    answer = service.ask(f"/report/?a=1&token={READ}&b=%26", None)
    assert (answer.status_code, answer.headers["location"]) == (303, "/report/?a=1&b=%26")
    cookie = answer.headers["set-cookie"]
    assert READ not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    name, value = cookie.partition(";")[0].split("=")
    assert service.status("/v1/plans", None, headers={"Cookie": f"{name}={value}"}) == 200
    assert service.status("/?token=wrong-0123456789abcdef", None) == 401
    # Cookies are the same for all ports of a host: another server's would take this one's place.
    assert name == f"sizer-{service.port}"


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "/%5Cevil.example/x", "/%2F%2Fevil.example", "/%5c%2fevil.example"]
)
def test_the_address_that_a_token_leaves_is_this_servers(service: Served, path: str) -> None:
    answer = service.ask(f"{path}?token={READ}", None)
    assert answer.status_code == 303
    assert re.match(r"/[^/\\]", answer.headers["location"])


def test_a_page_without_a_token_says_in_html_what_to_do(service: Served) -> None:
    page = service.ask("/dashboard", None, headers={"Accept": "text/html"})
    assert (page.status_code, "wants a token" in page.text) == (401, True)
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[", "localhost@evil.example"]
)
def test_a_request_under_another_name_is_refused(service: Served, host: str) -> None:
    """A page elsewhere whose name was made to point here (DNS rebinding) reads nothing, with the token or without."""
    for path in ("/v1/health", "/v1/plans", "/dashboard"):
        assert service.status(path, headers={"Host": host}) in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]:8080"])
def test_its_own_names_are_answered(service: Served, host: str) -> None:
    assert service.status("/v1/plans", headers={"Host": host}) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "file://", "http://["]
)
def test_a_page_of_another_origin_is_refused(service: Served, origin: str) -> None:
    assert service.status("/v1/stop?plan=small", WRITE, "POST", headers={"Origin": origin}) == 403
    assert service.status("/v1/plans", headers={"Origin": origin}) == 403


def test_a_browser_that_writes_says_from_which_page(service: Served) -> None:
    cookie = service.ask(f"/?token={WRITE}", None).headers["set-cookie"].partition(";")[0]
    assert service.status("/v1/stop?plan=small", None, "POST", headers={"Cookie": cookie}) == 403
    with_origin = {"Cookie": cookie, "Origin": service.url}
    assert service.status("/v1/stop?plan=small", None, "POST", headers=with_origin) == 409


def test_every_answer_keeps_browsers_from_doing_more_with_it(service: Served) -> None:
    asked = ["/v1/health", "/v1/plans", "/v1/nope", "/dashboard", "/report/", "/api/studies", "/artifacts/1/ab", "/x"]
    for answer in [*(service.ask(path) for path in asked), service.ask("/", None)]:
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy or "default-src 'self'" in policy
        assert "script-src 'unsafe-inline'" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


def test_a_preflight_of_another_origin_gets_no_leave(service: Served) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = service.ask("/v1/plans", None, "OPTIONS", headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_tokens_are_long_words_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{READ}\n")
    assert read_token(file) == READ
    for wrong in (
        "short",
        "",
        "x" * 15,
        "two words of a token",
        "x" * 20 + "\x07",
        "ü" * 20,
        "x" * 20 + "\n" + "y" * 20,
    ):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(InputError, match="one word of 16 characters or more") as said:
            read_token(file)
        assert not wrong or wrong not in str(said.value).replace("one word of", "")
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(InputError, match="it is no text"):
        read_token(file)
    with pytest.raises(InputError, match="No such file"):
        read_token(tmp_path / "none")
    assert READ not in repr(Keys.of(READ, WRITE))


@pytest.fixture(scope="module")
def tempting(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with an artifact that is a link out of its folder, one that is a page, and a file outside."""
    folder = tmp_path_factory.mktemp("tempting")
    shutil.copytree(trained.parent, folder, dirs_exist_ok=True)
    (folder / "secret.txt").write_text(SECRET)
    database = open_database(folder / "sizer.db")
    for name, number in (("link", 1), ("page", 2), ("..", 3)):
        identifier = str(uuid.UUID(int=number))
        entry = {"artifact_id": identifier, "filename": name, "mimetype": "text/html", "encoding": None}
        database.storage.set_study_system_attr(1, f"artifacts:{identifier}", json.dumps(entry))
    (database.files / "artifacts" / str(uuid.UUID(int=1))).symlink_to(folder / "secret.txt")
    (database.files / "artifacts" / str(uuid.UUID(int=2))).write_text("<script>alert(1)</script>")
    (database.files / "artifacts" / str(uuid.UUID(int=3))).symlink_to("..")
    database.close()
    with served(folder / "sizer.db") as running:
        yield running


def raw(service: Served, path: str) -> bytes:
    """The answer to a path that is sent as it stands."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {READ}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


UP = ["..", "%2e%2e", "%252e%252e", "..%2f..", "..%5c..", "%2e%2e%5c", "..\\", "%00", "....//", "%c0%ae%c0%ae"]
PLACES = ["/artifacts/1/{}", "/artifacts/1/1/{}", "/static/{}", "/report/{}", "/dashboard/{}", "/csv/{}", "/{}"]


@pytest.mark.parametrize("place", PLACES)
def test_no_path_leads_out_of_where_it_should_stay(tempting: Served, place: str) -> None:
    outside = tempting.database.files.parent / "secret.txt"
    ends = [f"{'/'.join([up] * 3)}/secret.txt" for up in UP] + [str(outside), f"/{outside}", f"%2f{str(outside)[1:]}"]
    for end in ends:
        answer = raw(tempting, place.format(end))
        assert answer.startswith(b"HTTP/1.1 "), end
        assert SECRET.encode() not in answer, end
        assert int(answer.split()[1]) != 500, (place, end)


def test_a_link_out_of_the_artifacts_is_not_followed(tempting: Served) -> None:
    for number in (1, 3):
        answer = tempting.ask(f"/artifacts/1/{uuid.UUID(int=number)}")
        assert (answer.status_code, SECRET in answer.text) == (404, False)


def test_an_artifact_that_is_a_page_runs_no_script_here(tempting: Served) -> None:
    answer = tempting.ask(f"/artifacts/1/{uuid.UUID(int=2)}")
    assert (answer.status_code, "<script>" in answer.text) == (200, True)
    assert "default-src 'none'; sandbox" in answer.headers["content-security-policy"]
    doubled = raw(tempting, f"//artifacts/1/{uuid.UUID(int=2)}")
    assert b"default-src 'none'; sandbox" in doubled.split(b"\r\n\r\n")[0]
    assert "access-control-allow-origin" not in answer.headers


NAMES = [
    "../secret.txt",
    "/etc/passwd",
    "%252e%252e/x",
    "..\\x",
    "small\n",
    "small\x00",
    ".hidden",
    "<b>",
    "x" * 300,
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused_wherever_a_plan_is_named(service: Served, name: str) -> None:
    gets = ["status", "trials", "history", "spec", "data", "driver", "best", "front", "architecture", "weights"]
    for method, what in [*(("GET", what) for what in gets), ("POST", "stop")]:
        answer = service.ask(f"/v1/{what}", WRITE, method, params={"plan": name})
        assert answer.status_code == 422, what
        assert "\n" not in answer.json()["detail"]
    assert service.status("/v1/best", params={"plan": "small", "arm": name}) == 422


@pytest.mark.parametrize("name", ["../../evil", "/evil", "a/../../b", "..", "a\\..\\b", "evil\n", "x" * 200, "a//b"])
def test_a_plans_own_name_leads_nowhere(service: Served, name: str, tmp_path: Path) -> None:
    answer = service.ask("/v1/plans", WRITE, "POST", json={"preset": "demo", "overrides": {"name": name}})
    text = f"name = {json.dumps(name)}\ndata = 'digits'\nnetwork = 'mlp'\nepochs = 1\ntrials = 1\n[arms.shrinknets]\n"
    other = service.ask("/v1/plans", WRITE, "POST", json={"plan": text})
    assert (answer.status_code, other.status_code) == (422, 422)
    assert not (service.database.files / "plans").exists()
