"""A server tells the command line what its database tells it, and what goes wrong is one line with the remedy."""

import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import sizer
from dashboards.cli import main
from dashboards.client import Remote, token_given
from dashboards.rows import plain
from dashboards.source import Local
from sizer.errors import InputError, UnknownNameError
from studies.launch import Launched
from tests.dashboards.served import READ, WRITE, Served, served

Sizer = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def remote(service: Served) -> Iterator[Remote]:
    with Remote(service.url, READ) as remote:
        yield remote


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sizer:
    """Runs `sizer` in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_every_question_has_the_same_answer(service: Served, remote: Remote) -> None:
    local = Local(service.database)
    assert remote.plan_names() == local.plan_names()
    for what in ("standing", "spec", "data", "driver"):
        assert getattr(remote, what)("small") == getattr(local, what)("small")
    for what in ("trials", "history", "front"):
        pd.testing.assert_frame_equal(getattr(remote, what)("small"), getattr(local, what)("small"), check_dtype=False)
    for limits in ({}, {"arm": "fixed"}, {"max_params": 700}, {"max_flops": 1000}):
        ours, theirs = local.best("small", **limits), remote.best("small", **limits)  # type: ignore[arg-type]
        assert plain(ours.to_frame().T) == plain(theirs.to_frame().T)
    built, sent = remote.architecture("small", remote.best("small"))
    same, kept = local.architecture("small", local.best("small"))
    assert built == same
    assert all(torch.equal(sent[name], kept[name]) for name in [*sent, *kept])


def test_what_the_server_refuses_is_refused_alike(service: Served, remote: Remote) -> None:
    with pytest.raises(UnknownNameError, match="there are: small"):
        remote.spec("smal")
    with pytest.raises(InputError, match="the nearest is"):
        remote.best("small", max_params=5)
    with pytest.raises(InputError, match="writing needs the write token"):
        remote.stop("small")
    with Remote(service.url, WRITE) as writing, pytest.raises(InputError, match="nobody runs small"):
        writing.stop("small")


@pytest.mark.parametrize("command", [["status"], ["compare", "small"], ["best", "--max-params", "700"]])
def test_the_command_line_prints_the_same(
    run: Sizer, service: Served, trained: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    here = run(*command, "--db", str(trained))
    monkeypatch.setenv("SIZER_TOKEN", READ)
    assert run(*command, "--server", service.url) == here
    monkeypatch.setenv("SIZER_SERVER", f"{service.url}/")
    assert run(*command) == here
    # What is typed wins over the environment.
    assert run(*command, "--db", "none.db")[0] == 2
    assert "give one of them" in run(*command, "--db", str(trained), "--server", service.url)[2]


def test_a_network_comes_whole_and_scores_what_it_did(
    run: Sizer, service: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(READ)
    monkeypatch.setenv("SIZER_TOKEN_FILE", str(tmp_path / "token"))
    code, out, _ = run("best", "--server", service.url, "--out", "net")
    assert (code, "written to net" in out) == (0, True)
    net = sizer.load("net")
    assert sum(p.numel() for p in net.parameters()) == Local(service.database).best("small").parameters
    code, out, _ = run("report", "--server", service.url)
    assert (code, out) == (0, "report.html written\n")


def test_a_plan_is_submitted_and_what_became_of_it_said(
    run: Sizer, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").mkdir()
    shutil.copytree(trained.parent, tmp_path / "db", dirs_exist_ok=True)
    monkeypatch.setenv("SIZER_TOKEN", WRITE)
    plan = 'name = "mine"\ndata = "digits"\nnetwork = "mlp"\nepochs = 2\ntrials = 2\n[arms.shrinknets]\n'
    (tmp_path / "mine.toml").write_text(plan)
    with served(tmp_path / "db" / "sizer.db", start=lambda *_: Launched(None, None, "a job")) as running:
        server = ["--server", running.url]
        assert run("submit", "mine.toml", *server) == (0, "mine submitted\n", "")
        assert run("submit", "mine.toml", *server) == (0, "mine runs already\n", "")
        assert run("submit", "demo", "--trials", "1", *server)[:2] == (0, "demo submitted\n")
        assert "epochs: was 2, now 3" in run("submit", "mine.toml", "--epochs", "3", *server)[2]
        assert "the server decides that" in run("submit", "demo", "--gpus-per-trial", "1", *server)[2]
        assert "mine" in run("status", *server)[1]
    assert "--address of a Ray cluster, or --server" in run("submit", "demo")[2]


def test_a_wrong_token_or_none_is_said_with_where_it_goes(service: Served) -> None:
    for token, said in ((None, "wants a token: set SIZER_TOKEN"), (f"{READ}x", "wants another token: set SIZER_TOKEN")):
        with Remote(service.url, token) as remote, pytest.raises(InputError, match=said) as refused:
            remote.plan_names()
        assert READ not in str(refused.value)


def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{READ}\n")
    assert token_given({}) is None
    assert token_given({"SIZER_TOKEN_FILE": str(tmp_path / "token")}) == READ
    assert token_given({"SIZER_TOKEN_FILE": "none", "SIZER_TOKEN": WRITE}) == WRITE
    with pytest.raises(InputError, match="no token in none"):
        token_given({"SIZER_TOKEN_FILE": "none"})


@pytest.mark.parametrize("address", ["", "localhost:8080", "ftp://x", "http://", "http://x:port", "http://[x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="http://localhost:8080"):
        Remote(address, None)


@pytest.mark.parametrize("address", [f"http://localhost:1/?token={READ}", f"http://x:{READ}@localhost:1"])
def test_an_address_with_a_token_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(InputError, match="the token goes into SIZER_TOKEN") as refused:
        Remote(address, None)
    assert READ not in str(refused.value)


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/json") -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "http://evil.example/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b'{"status": "ok", "version": "99.1.0"}', "is sizer 99.1.0, this is .*: use the same version"),
        (200, b"[]", "is no sizer"),
        (200, b"not json", "is no sizer"),
        (302, b"", "is no sizer"),
        (502, b"<html>", "is no sizer .it answered 502."),
    ],
)
def test_what_is_another_version_or_no_sizer_is_said(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as address, pytest.raises(InputError, match=said):
        Remote(address, READ)


def test_where_nothing_listens_the_line_says_what_starts_it() -> None:
    with pytest.raises(InputError, match=r"no server at http://127\.0\.0\.1:1 .*: `sizer dashboard` starts one"):
        Remote("http://127.0.0.1:1", None)


def test_weights_that_are_not_what_was_announced_are_refused() -> None:
    health = json.dumps({"status": "ok", "version": version("sizer")}).encode()
    refused = pytest.raises(InputError, match="are not whole")
    with answering(200, health) as address, Remote(address, READ) as remote, refused:
        remote._weights({"plan": "small"})
