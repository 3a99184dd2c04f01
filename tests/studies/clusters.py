"""A Ray cluster of several nodes on loopback, each of processes that the test itself started and ends by their ids."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
# A node that is gone is noticed within seconds, not within a quarter of a minute.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}


class Cluster:
    """A head, and the nodes that are added to it.

    Attributes:
        folder: where Ray keeps its sessions; of a short name, as its sockets lie there.
        environment: what drivers need to join it, its token among it.
        address: HOST:PORT.
        jobs: where jobs are submitted.
        client: for Ray Client.
        nodes: the `ray start --block` of every node, the head first.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", token: bool = True) -> None:
        self.folder = folder
        self.host = host
        gcs, jobs, client = _free_ports(3)
        self.address, self.jobs, self.client = f"{host}:{gcs}", f"http://{host}:{jobs}", f"ray://{host}:{client}"
        self._ports = {"port": gcs, "dashboard-port": jobs, "ray-client-server-port": client}
        self.environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
        if token:
            path = folder / "token"
            path.write_text(secrets.token_hex(32))
            path.chmod(0o600)
            self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
        else:
            self.environment |= {"RAY_AUTH_MODE": "disabled"}
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self, cpus: int = 2, gpus: int = 0, environment: Mapping[str, str] | None = None) -> None:
        """Starts the head; returns when jobs can be submitted."""
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        self._start(["--head", "--dashboard-host", self.host, *ports], cpus, gpus, [], environment or {})
        self._until(lambda: all(_answers(self.host, port) for port in self._ports.values()))

    def add_node(
        self,
        cpus: int = 2,
        gpus: int = 0,
        inside: Sequence[str] = (),
        host: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a node; returns when the head knows it.

        Args:
            cpus: how many it says that it has.
            gpus: as logical resources.
            inside: a command that is put before `ray start`, such as `unshare`.
            host: its own address, where it is not the head's.
            environment: over the cluster's.
        """
        process = self._start([f"--address={self.address}"], cpus, gpus, inside, environment or {}, host)
        log = self.folder / f"node-{len(self.nodes) - 1}.log"
        self._until(lambda: "Ray runtime started" in log.read_text())
        return process

    def end(self) -> None:
        """Ends every node, the head last."""
        for process in reversed(self.nodes):
            end(process)

    def _start(self, arguments, cpus, gpus, inside, environment, host=None):  # type: ignore[no-untyped-def]
        command = [
            *inside, RAY, "start", "--block", "--disable-usage-stats", f"--temp-dir={self.folder}",
            f"--node-ip-address={host or self.host}", f"--num-cpus={cpus}", f"--num-gpus={gpus}",
            f"--object-store-memory={100 * 2**20}", *arguments,
        ]  # fmt: skip
        # A node has the libraries and, as far as this tells, none of our code.
        own = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "SIZER_DB"}}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {**own, "PATH": path, **self.environment, **HEALTH, **environment}
        log = (self.folder / f"node-{len(self.nodes)}.log").open("wb")
        process = subprocess.Popen(
            command, cwd=self.folder, env=given, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        log.close()
        self.nodes.append(process)
        return process

    def _until(self, holds) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + 90
        while not holds():
            assert self.nodes[-1].poll() is None, (self.folder / f"node-{len(self.nodes) - 1}.log").read_text()
            assert time.monotonic() < deadline, "the node did not come up"
            time.sleep(0.2)


def below(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def end(process: subprocess.Popen[bytes], kind: signal.Signals = signal.SIGTERM) -> None:
    """Ends a node: `ray start --block` ends what it started; what is left after seconds is killed by its id."""
    pids = below(process.pid)
    for pid in pids if kind == signal.SIGKILL else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    deadline = time.monotonic() + 10
    while (left := [pid for pid in pids if _runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(15)


@contextlib.contextmanager
def cluster(**how) -> Iterator[Cluster]:  # type: ignore[no-untyped-def]
    """A cluster without nodes yet; they do not outlive the block."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), **how)
        try:
            yield made
        finally:
            made.end()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _answers(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in made]
