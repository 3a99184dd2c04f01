"""docker-compose.yml without a container engine: its very commands, with its environment, mounts and users.

Every service gets a file system of its own (an overlay over this machine's, with the volumes, secrets and tmpfs of the
file at their places) and all of them a network of their own, in which each service's name is the loopback address.
That takes root and Linux. What stands in an image's own entrypoint is done here for PostgreSQL alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.postgres import BIN as POSTGRES

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class UnsetError(Exception):
    """A variable that must be set is not; the file's own words."""


def read(environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables put in and its merges resolved."""

    def put(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        if environment.get(name):
            return environment[name]
        if kind == "?":
            raise UnsetError(f"{name}: {text}")
        return text or ""

    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(put, "\n".join(lines)))
    return found


def can_run() -> bool:
    """Whether this machine lets us have file systems and networks of our own."""
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("nsenter") or not shutil.which("setpriv"):
        return False
    return subprocess.run(["unshare", "-n", "-m", "-u", "true"], capture_output=True, check=False).returncode == 0


class Composed:
    """The services, started in the order that the file says.

    Attributes:
        folder: Volumes, secrets and logs.
        tokens: What the secrets' files hold, by name.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sizer-compose-"))
        self.folder.chmod(0o755)
        self.tokens = {}
        self._secrets = self.folder / "secrets"
        self._secrets.mkdir()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.file = read({**os.environ, "SIZER_SECRETS": str(self._secrets)})
        for name, secret in self.file["secrets"].items():
            self.tokens[name] = secrets.token_hex(32)
            Path(secret["file"]).write_text(self.tokens[name] + "\n")
        # It holds the network; nothing of it is seen outside.
        hold = "ip link set lo up && echo up && exec sleep 3600"
        self._network = subprocess.Popen(["unshare", "-n", "sh", "-c", hold], stdout=subprocess.PIPE)
        assert self._network.stdout is not None
        assert self._network.stdout.readline() == b"up\n"

    def __enter__(self) -> Composed:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._network.kill()
        self._network.communicate()
        shutil.rmtree(self.folder)

    def up(self, *services: str) -> None:
        """Starts services, what they depend on before them, and waits until they are healthy."""
        for service in services:
            for needed, how in self.file["services"][service].get("depends_on", {}).items():
                self.up(needed)
                if how["condition"] == "service_completed_successfully":
                    code = self._processes[needed].wait(timeout=120)
                    assert code == 0, self.log(needed)
            self.start(service)
            self._wait_for(service)

    def start(self, service: str, copy: int = 0) -> None:
        """Starts one, unless it runs; `copy` tells several of `--scale` apart."""
        name = f"{service}-{copy}" if copy else service
        if name in self._processes:
            return
        about = self.file["services"][service]
        command = list(about["command"])
        if service == "postgres":
            command = ["sh", "-c", _POSTGRES_ENTRYPOINT, *command]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                self._inside(service, name, command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(self, service: str, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command as `docker compose exec` would."""
        return subprocess.run(
            self._inside(service, f"{service}-{secrets.token_hex(3)}", list(command)),
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def outside(
        self, *command: str, timeout: float = 120, token: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command that sees the network and nothing else of the services; a `token` comes on standard input."""
        return subprocess.run(
            ["nsenter", "-t", str(self._network.pid), "-n", *command],
            capture_output=True, text=True, timeout=timeout, check=False, input=f"{token}\n",
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip

    def pids(self, name: str) -> list[int]:
        """The processes of a service."""
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
        found = [self._processes[name].pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def log(self, name: str) -> str:
        """What a service said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def volume(self, name: str) -> Path:
        """The folder of a named volume."""
        return self.folder / "volumes" / name

    def _wait_for(self, service: str) -> None:
        check = self.file["services"][service].get("healthcheck")
        deadline = time.monotonic() + 120
        while check is not None:
            assert self._processes[service].poll() is None, self.log(service)
            done = self.run(service, *check["test"][1:])
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, (done.stdout, done.stderr, self.log(service))
            time.sleep(0.5)

    def _inside(self, service: str, name: str, command: list[str]) -> list[str]:
        about, place = self.file["services"][service], self.folder / "roots" / name
        upper, work, root = (place / part for part in ("upper", "work", "root"))
        user, _, group = about["user"].partition(":")
        steps = [f"mkdir -p {upper} {work} {root}"]
        steps += [f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={work} {root}"]
        steps += [f"mount --rbind /{part} {root}/{part}" for part in ("proc", "dev", "sys")]
        for where in (os.path.realpath(entry.partition(":")[0]) for entry in about.get("tmpfs", [])):
            steps += [f"mkdir -p {root}{where}", f"mount -t tmpfs -o mode=1777 tmpfs {root}{where}"]
        steps += [f"mount -t tmpfs -o size={about.get('shm_size', '64mb')[:-1]},mode=1777 tmpfs {root}/dev/shm"]
        steps += [f"echo {service}:x:{user}:{group}::/tmp:/bin/sh >> {root}/etc/passwd"]  # the image's user
        # The product and its libraries, which an image would hold, at the places they have here.
        for path in {str(ROOT), sys.prefix, str(POSTGRES.parent)}:
            steps += [f"mkdir -p {root}{path}", f"mount --rbind {path} {root}{path}"]
        for path in (str(ROOT), sys.prefix, os.path.realpath(sys.executable)):
            steps += [f"chmod o+x {root}{parent}" for parent in reversed(Path(path).parents[:-1])]
        for source, where, *kind in (entry.split(":") for entry in about.get("volumes", [])):
            held = self.volume(source)
            steps += [f"test -d {held} || install -d -o {user} -g {group} {held}"]
            steps += [f"mkdir -p {root}{where}", f"mount --bind {held} {root}{where}"]
            steps += [f"mount -o remount,ro,bind {root}{where}"] if kind == ["ro"] else []
        steps += [f"mkdir -p {root}/run/secrets", f"mount -t tmpfs -o mode=755 tmpfs {root}/run/secrets"]
        for secret in about.get("secrets", []):
            held, seen = self.file["secrets"][secret]["file"], f"{root}/run/secrets/{secret}"
            steps += [f"touch {seen}", f"mount --bind {held} {seen}"]
        names = " ".join(["localhost", name, *self.file["services"]])
        steps += [f"echo 127.0.0.1 {names} > {place}/hosts", f"mount --bind {place}/hosts {root}/etc/hosts"]
        steps += [f"hostname {name}"]
        path = f"{sys.prefix}/bin:{POSTGRES}:/usr/local/bin:/usr/bin:/bin"
        given = {"PATH": path, "HOME": "/tmp", "PYTHONPATH": str(ROOT), **about.get("environment", {})}
        limits = ["--no-new-privs"] if "no-new-privileges:true" in about["security_opt"] else []
        limits += ["--inh-caps=-all", "--bounding-set=-all"] if "ALL" in about["cap_drop"] else []
        run = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *limits, "env", "-i", "-C", "/tmp"]
        run += [*(f"{key}={value}" for key, value in given.items()), *command]
        script = " && ".join([*steps, f"exec chroot {root} {shlex.join(run)}"])
        spaces = ["unshare", "--mount", "--uts", "--propagation", "private"]
        return ["nsenter", "-t", str(self._network.pid), "-n", *spaces, "sh", "-c", script]


# What the image's entrypoint does before it runs the command: "$@".
_POSTGRES_ENTRYPOINT = """
test -s "$PGDATA/PG_VERSION" || {
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS --no-sync &&
  echo "create database $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres
} || exit 1
exec "$0" "$@" -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
"""
