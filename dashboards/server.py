"""Listens at one address and port, and serves there until Ctrl-C."""

from __future__ import annotations

import errno
import gc
import socket

import uvicorn
from starlette.types import ASGIApp

from sizer.errors import InputError

HOST = "127.0.0.1"
_GRACE = 3


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        InputError: The port is in use or not ours to take, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            line = f"port {port} is in use: name another with --port, or --port 0 for a free one"
            raise InputError(line) from None
        if error.errno == errno.EACCES:
            raise InputError(f"port {port} needs more rights: name one from 1024 up with --port") from None
        raise InputError(f"{host!r} is no address of this machine ({error.strerror}): name one with --host") from None


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of the application, for `run(sockets=[...])`.

    It keeps no access log: addresses may hold a token. What is there by now is not looked through for garbage again:
    pages of thousands of trials make many objects, all of which go when they are sent.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )
