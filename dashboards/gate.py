"""Who may ask for what: in front of every page and every route, so that nothing is open that was not opened here.

A token opens it, as `Authorization: Bearer TOKEN`, or once as `?token=TOKEN`, which leaves a cookie. The request must
name this server by one of its own names (else a page elsewhere could reach it by DNS rebinding) and, where a browser
says where it comes from, come from its own pages.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sizer.errors import InputError

READ, WRITE = "read", "write"
PUBLIC = ("/v1/health", "/openapi.json")
"""What anybody may read who can reach the server."""
SHORTEST = 16
LARGEST = 1 << 20
"""Bytes of a request to the API."""
_READS = ("GET", "HEAD")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d+)?")
_HINT = "open the address that `sizer dashboard` printed, or send `Authorization: Bearer TOKEN`"


@dataclass(frozen=True)
class Keys:
    """The tokens and what they open; kept as digests, so that neither length nor start of one shows in the time taken.

    Attributes:
        read: SHA-256 of the token that lets read; None where there is none.
        write: Of the one that lets read and write.
    """

    read: bytes | None = None
    write: bytes | None = None

    @classmethod
    def of(cls, read: str | None = None, write: str | None = None) -> Keys:
        """The keys of two tokens."""
        return cls(*(None if token is None else _digest(token) for token in (read, write)))

    def role(self, digest: bytes) -> str | None:
        """What the token of this digest opens: `read`, `write`, or None."""
        writes, reads = (key is not None and hmac.compare_digest(digest, key) for key in (self.write, self.read))
        return WRITE if writes else READ if reads else None


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        InputError: It cannot be read, is too short, or could not be sent.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            f"no token in {path} ({reason}): write one there, such as `openssl rand -hex 32` gives"
        ) from None
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"the token in {path} must be one word of {SHORTEST} characters or more, as `openssl rand -hex 32` gives it"
        )
    return token


class Gate:
    """An ASGI application in front of another.

    Args:
        app: What stands behind.
        keys: Who may pass.
        names: The host names by which the server may be asked.
        policy: The Content-Security-Policy of a path.
    """

    def __init__(self, app: ASGIApp, keys: Keys, names: Collection[str], policy: Callable[[str], str]) -> None:
        self.app = app
        self._keys = keys
        self._names = {name.lower() for name in names}
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through, or answers it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._stopped(Request(scope))
            await (answer or self.app)(scope, receive, self._guarded(scope["path"], send))

    def _stopped(self, request: Request) -> Response | None:
        """The answer to a request that goes no further."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if _hostname(host) not in self._names:
            return _refused(403, f"this server is not called {host!r}: `--allowed-host` gives it that name")
        if origin is not None and origin.lower().rpartition("://")[2] != host.lower():
            return _refused(403, f"a page of {origin!r} may not ask this server")
        if request.scope["path"] in PUBLIC and request.method in _READS:
            return None
        role, by_cookie = self._role(request)
        if role is None:
            return self._unknown(request)
        if "token" in request.query_params and request.method in _READS:
            return self._remembered(request)
        size = request.headers.get("content-length", "")
        if request.scope["path"].startswith("/v1/") and size.isdecimal() and int(size) > LARGEST:
            return _refused(413, f"{int(size):,} bytes are more than any plan has: {LARGEST:,} at most")
        if request.method not in _READS:
            if role != WRITE:
                return _refused(403, "this token only reads: writing needs the write token")
            if by_cookie and origin is None:
                return _refused(403, "a browser that writes must say from which page: no Origin was sent")
        return None

    def _role(self, request: Request) -> tuple[str | None, bool]:
        """What the caller may do, and whether a cookie said so."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._keys.role(_digest(token.strip())), False
        if "token" in request.query_params and request.method in _READS:
            return self._keys.role(_digest(request.query_params["token"])), False
        kept = request.cookies.get(_cookie(request), "")
        return self._keys.role(bytes.fromhex(kept) if _is_hex(kept) else b""), True

    def _unknown(self, request: Request) -> Response:
        headers = {"WWW-Authenticate": "Bearer"}
        if "text/html" in request.headers.get("accept", ""):
            page = f"<!doctype html><title>sizer</title><p>This page wants a token: {escape(_HINT)}.</p>"
            return HTMLResponse(page, 401, headers)
        return _refused(401, f"a token is wanted: {_HINT}", headers)

    def _remembered(self, request: Request) -> Response:
        """The same address without the token, which a cookie then stands for."""
        rest = [(key, value) for key, value in parse_qsl(request.url.query, True) if key != "token"]
        # One slash first: `//other.example/` would be another server's address.
        path = "/" + quote(request.scope["path"].lstrip("/\\"), safe="/")
        answer = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        answer.set_cookie(
            _cookie(request),
            _digest(request.query_params["token"]).hex(),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    def _guarded(self, path: str, send: Send) -> Send:
        """Puts onto every answer what keeps browsers from doing more with it than showing it."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]
                headers["Content-Security-Policy"] = f"{self._policy(path)}; frame-ancestors 'none'"
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers.setdefault("Cache-Control", "private, no-cache")
            await send(message)

        return guarded


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _cookie(request: Request) -> str:
    """Cookies are the same for all ports of a host, and each server there has its own."""
    return f"sizer-{(request.scope.get('server') or ('', 0))[1]}"


def _hostname(host: str) -> str | None:
    """What a Host header names, without the port; None where it is no such header."""
    found = _HOST.fullmatch(host.lower())
    return found and (found[1] or found[2])


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


def _refused(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": line}, status, headers)
