"""Whether a Ray cluster answers, lets us in, and lets nobody in who has no token."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # it ships no types

from sizer.errors import InputError

_ANSWERS_WITHIN = 3.0
_PROCESSES = Path("/proc")
_START = "start one with `ray start --head`, or leave the address out"
_TOKEN = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE"
_OPEN = f"whoever reaches a Ray cluster runs code there: start its nodes with {_TOKEN}, and sizer, too"


def check(address: str) -> None:
    """Makes sure that a cluster answers and takes our token, within seconds.

    Args:
        address: `HOST:PORT`; `auto` is left to Ray, which finds it.

    Raises:
        InputError: It does not, it is no such address, or it is another machine's and there is no token.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"{address} is Ray Client's, which Ray Tune cannot run trials through: on a machine of the cluster give"
            " HOST:PORT or auto; from elsewhere use `sizer submit`"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address} is no Ray address: give HOST:PORT, such as 10.0.0.1:6379, or auto")
    if not is_loopback(host.strip("[]")):
        require_token(address)
    _greet(address, host.strip("[]"), int(port))
    if not _admits(address, token()):
        raise InputError(refused(address))


def check_node(address: str) -> None:
    """Makes sure that this machine is a node of a cluster, as a driver's must be; Ray would look for a minute.

    Args:
        address: The cluster's.

    Raises:
        InputError: Nothing of Ray runs here.
    """
    names = [path for path in _PROCESSES.glob("[0-9]*/comm") if _named(path) == "raylet"]
    if _PROCESSES.exists() and not names:
        raise InputError(
            f"this machine is no node of the cluster at {address}: sweep on one that is, or hand it over with"
            " `sizer submit PLAN --address http://HOST:8265`"
        )


def check_closed(address: str, nodes: set[str], here: str) -> None:
    """Makes sure that a cluster of other machines' nodes is closed to those who have no token.

    Args:
        address: Of its head.
        nodes: The addresses of its nodes.
        here: The address of this machine's node.

    Raises:
        InputError: It is open.
    """
    if nodes <= {here}:
        return
    require_token(address)
    if _admits(address, ""):
        raise InputError(f"the Ray at {address} lets in whoever asks, without a token: {_OPEN}")


def token() -> str:
    """The cluster's token, from where Ray takes it; "" where RAY_AUTH_MODE is not token.

    Raises:
        InputError: There is none, or its file cannot be read.
    """
    if not _has_mode():
        return ""
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"RAY_AUTH_MODE=token, but no token in {path} ({why}): set RAY_AUTH_TOKEN_PATH") from None
    if not found:
        raise InputError(f"RAY_AUTH_MODE=token, but {path} is empty: it should hold the cluster's token")
    return found


def refused(address: str) -> str:
    """What to say where a cluster does not take our token, or wants one."""
    if not _has_mode():
        return f"the Ray at {address} wants a token: set {_TOKEN}"
    named = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else "RAY_AUTH_TOKEN_PATH"
    return f"the Ray at {address} refuses the token of {named}: give it that of its nodes"


def require_token(address: str) -> None:
    """Refuses what is not on this machine where there is no token.

    Raises:
        InputError: RAY_AUTH_MODE is not token.
    """
    if not _has_mode():
        raise InputError(f"{address} is a cluster of other machines, and RAY_AUTH_MODE is not token: {_OPEN}")


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(place[4][0]).partition("%")[0]).is_loopback for place in found)


def _named(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # it has ended
        return ""


def _has_mode() -> bool:
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"


def _greet(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), timeout=_ANSWERS_WITHIN) as connection:
            # Ray speaks gRPC. It would wait minutes for anything else that listens there, so it is greeted first.
            connection.settimeout(_ANSWERS_WITHIN)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            greeting = connection.recv(9)
    except OSError as error:
        raise InputError(f"no Ray at {address} ({error}): {_START}") from None
    if greeting[3:4] != b"\x04":
        raise InputError(f"what listens at {address} is no Ray: {_START}")


def _admits(address: str, said: str) -> bool:
    """Whether the head answers a question asked with this token, or with none."""
    metadata = (("authorization", f"Bearer {said}"),) if said else ()
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            "/ray.rpc.NodeInfoGcsService/CheckAlive", request_serializer=bytes, response_deserializer=bytes
        )
        try:
            ask(b"", metadata=metadata, timeout=_ANSWERS_WITHIN)
        except grpc.RpcError as error:
            return error.code() not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
    return True
