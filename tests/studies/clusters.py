"""A Ray cluster of several nodes on loopback: processes that the test itself started, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
# A node that is gone is noticed within seconds, not within a quarter of a minute.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
_STARTS_WITHIN = 120.0
# What a node is started without: it has the libraries and none of our code, as far as the environment says.
_NOT_A_NODES = {"PYTHONPATH", "SIZER_DB"}


class Cluster:
    """A head, and the nodes that are added to it.

    Attributes:
        folder: Where Ray keeps its sessions; of a short name, as its sockets lie there.
        environment: What drivers need to join it: its token, unless it has none.
        address: HOST:PORT.
        jobs: Where jobs are submitted.
        nodes: The `ray start --block` of every node, the head first.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1", *, token: bool = True) -> None:
        self.folder = folder
        self.host = host
        ports = _free_ports(3)
        self.address, self.jobs = f"{host}:{ports[0]}", f"http://{host}:{ports[1]}"
        self._ports = dict(zip(("port", "dashboard-port", "ray-client-server-port"), ports, strict=True))
        self.environment = {"RAY_AUTH_MODE": "token" if token else "disabled"}
        if token:
            path = folder / "token"
            path.write_text(secrets.token_hex(32))
            path.chmod(0o600)
            self.environment |= {"RAY_AUTH_TOKEN_PATH": str(path)}
        self.nodes: list[subprocess.Popen[bytes]] = []

    def start_head(self, cpus: int = 1, gpus: int = 0, environment: Mapping[str, str] | None = None) -> None:
        """Starts the head; returns when jobs can be submitted."""
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        place = ["--head", f"--dashboard-host={self.host}", f"--node-ip-address={self.host}", *ports]
        self._start(place, cpus, gpus, (), environment or {})

    def add_node(
        self, cpus: int = 1, gpus: int = 0, inside: Sequence[str] = (), host: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a node; returns when it belongs to the cluster.

        Args:
            cpus: How many it says that it has.
            gpus: As logical resources.
            inside: A command that `ray start` comes behind, such as `unshare`.
            host: Its own address, where it is not the head's.
        """
        place = [f"--address={self.address}", f"--node-ip-address={host or self.host}"]
        return self._start(place, cpus, gpus, inside, {})

    def end(self) -> None:
        """Ends every node, the head last."""
        for process in reversed(self.nodes):
            end(process)

    def _start(
        self, place: Sequence[str], cpus: int, gpus: int, inside: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        # A folder of each node's own: what one has unpacked there for its workers another would unpack anew.
        own = self.folder / str(len(self.nodes))
        command = [
            *inside, RAY, "start", "--block", "--disable-usage-stats", f"--temp-dir={own}",
            f"--dashboard-agent-listen-port={_free_ports(1)[0]}", f"--num-cpus={cpus}", f"--num-gpus={gpus}",
            f"--object-store-memory={100 * 2**20}", *place,
        ]  # fmt: skip
        given = {key: value for key, value in os.environ.items() if key not in _NOT_A_NODES}
        given |= {"PATH": f"{Path(RAY).parent}{os.pathsep}{given['PATH']}", **self.environment, **_HEALTH}
        said = self.folder / f"node-{len(self.nodes)}.log"
        with said.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env={**given, **environment}, stdout=log, stderr=log, start_new_session=True
            )
        self.nodes.append(process)
        until(lambda: "Ray runtime started" in said.read_text(), _STARTS_WITHIN, process, said)
        return process


@contextlib.contextmanager
def cluster(host: str = "127.0.0.1", *, token: bool = True) -> Iterator[Cluster]:
    """A cluster that has no node yet; none outlives the block."""
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder), host, token=token)
        try:
            yield made
        finally:
            made.end()


def until(
    holds: Callable[[], bool], within: float, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Waits until something holds, as long as a process that it needs runs."""
    deadline = time.monotonic() + within
    while not holds():
        assert process is None or process.poll() is None, log.read_text() if log is not None else "it ended"
        assert time.monotonic() < deadline, log.read_text() if log is not None else "it took too long"
        time.sleep(0.2)


def without(*folders: Path) -> list[str]:
    """A command that runs what comes behind it where these folders are empty; needs root."""
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in folders)
    return ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


class Wire:
    """A network namespace of its own, and the one wire that leads there; needs root.

    Attributes:
        here: The address of this end.
        there: The address inside.
        inside: A command that runs what comes behind it there.
    """

    def __init__(self) -> None:
        self._name = f"sizer-{secrets.token_hex(3)}"
        self._end = f"v{self._name[-6:]}"
        block = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
        self.here, self.there = f"{block}.1", f"{block}.2"
        self.inside = ["ip", "netns", "exec", self._name]
        _run("ip", "netns", "add", self._name)
        _run("ip", "link", "add", self._end, "type", "veth", "peer", "name", f"{self._end}p")
        _run("ip", "link", "set", f"{self._end}p", "netns", self._name)
        _run("ip", "addr", "add", f"{self.here}/24", "dev", self._end)
        _run("ip", "link", "set", self._end, "up")
        _run(*self.inside, "ip", "addr", "add", f"{self.there}/24", "dev", f"{self._end}p")
        for end in (f"{self._end}p", "lo"):
            _run(*self.inside, "ip", "link", "set", end, "up")

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        _run("ip", "link", "set", self._end, "down")

    def remove(self) -> None:
        """Removes both ends and the namespace."""
        _run("ip", "link", "delete", self._end)
        _run("ip", "netns", "delete", self._name)


def may_part_networks() -> bool:
    """Whether this process may make network namespaces and wires."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    with contextlib.suppress(subprocess.CalledProcessError):
        Wire().remove()
        return True
    return False


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


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


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a node: `ray start --block` ends what it started; what is left after seconds is killed by its id."""
    pids = below(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    deadline = time.monotonic() + 10
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill([pid for pid in pids if _runs(pid)])
    process.wait(20)


def kill(pids: Sequence[int]) -> None:
    """kill -9."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in made]
