"""A cluster is joined by who has its token, and one of other machines only if others are kept out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from sizer.errors import InputError
from studies import access

TOKEN = "t" * 64
ELSEWHERE = "192.0.2.1:6379"


class _Head(grpc.GenericRpcHandler):
    """Answers as Ray's head does, to those who have the token if there is one."""

    def __init__(self, token: str) -> None:
        self._token = token

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/ray.rpc.NodeInfoGcsService/CheckAlive":
            return None
        said = dict(details.invocation_metadata).get("authorization", "")

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if self._token and said != f"Bearer {self._token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def head(token: str = "") -> Iterator[str]:
    """The address of a head that wants this token."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[_Head(token)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, neither in the environment nor in the home."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def with_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of who has the token, in this file."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    return path


def refused(address: str) -> str:
    """The one line that a refusal is, which comes within seconds."""
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        access.check(address)
    assert time.monotonic() - began < 8
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_cluster_of_this_machine_is_joined_as_it_is() -> None:
    with head() as address:
        access.check(address)
        access.check(address.replace("127.0.0.1", "localhost"))
    access.check("auto")


def test_one_of_another_machine_is_refused_without_a_token_before_anything_is_sent() -> None:
    began = time.monotonic()
    line = refused(ELSEWHERE)
    assert line.startswith(f"{ELSEWHERE} is a cluster of other machines, and RAY_AUTH_MODE is not token: whoever")
    assert line.endswith("start its nodes with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE, and sizer, too")
    assert time.monotonic() - began < 1


def test_a_token_is_taken_from_where_ray_takes_it(with_token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with head(TOKEN) as address:
        access.check(address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
        with_token.write_text("another")
        access.check(address)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        (with_token.parent / ".ray").mkdir()
        (with_token.parent / ".ray" / "auth_token").write_text(TOKEN)
        access.check(address)


def test_a_wrong_token_or_none_is_one_line_with_the_remedy(with_token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with head(TOKEN) as address:
        with_token.write_text("f" * 64)
        assert refused(address) == (
            f"the Ray at {address} refuses the token of RAY_AUTH_TOKEN_PATH: give it that of its nodes"
        )
        with_token.write_text("")
        assert "is empty: it should hold the cluster's token" in refused(address)
        with_token.unlink()
        assert f"no token in {with_token} (No such file or directory): set RAY_AUTH_TOKEN_PATH" in refused(address)
        monkeypatch.delenv("RAY_AUTH_MODE")
        assert refused(address) == (
            f"the Ray at {address} wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE"
        )


def test_no_token_is_shown(with_token: Path) -> None:
    with_token.write_text("secret" * 8)
    with head(TOKEN) as address:
        assert "secret" not in refused(address)


def test_nodes_of_other_machines_must_be_closed_to_those_without_a_token(
    with_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with head() as opened, head(TOKEN) as closed:
        access.check_closed(opened, {"10.0.0.1"}, "10.0.0.1")
        access.check_closed(closed, {"10.0.0.1", "10.0.0.2"}, "10.0.0.1")
        with pytest.raises(InputError, match=f"the Ray at {opened} lets in whoever asks, without a token: whoever"):
            access.check_closed(opened, {"10.0.0.1", "10.0.0.2"}, "10.0.0.1")
        monkeypatch.delenv("RAY_AUTH_MODE")
        with pytest.raises(InputError, match="RAY_AUTH_MODE is not token"):
            access.check_closed(closed, {"10.0.0.1", "10.0.0.2"}, "10.0.0.1")


def test_what_is_no_ray_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert refused(f"127.0.0.1:{mute.getsockname()[1]}").startswith("no Ray at 127.0.0.1:")
    assert refused("ray://127.0.0.1:10001").startswith("ray://127.0.0.1:10001 is Ray Client's, which Ray Tune cannot")
    assert refused("10.0.0.1") == "10.0.0.1 is no Ray address: give HOST:PORT, such as 10.0.0.1:6379, or auto"


def test_a_machine_that_is_no_node_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(access, "_PROCESSES", tmp_path)
    for pid, name in ((1, "init"), (17, "python")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
    with pytest.raises(InputError, match=r"this machine is no node of the cluster at 10.0.0.1:6379: sweep on one"):
        access.check_node("10.0.0.1:6379")
    (tmp_path / "17" / "comm").write_text("raylet\n")
    access.check_node("10.0.0.1:6379")
