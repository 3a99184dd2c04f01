"""Ray itself: a cluster of this machine's own, or one that the user named; quiet, and gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Ray and Tune read these when they are imported or started.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402  # after the variables that it reads

from sizer.errors import InputError, SizerError  # noqa: E402  # as above

WORKER_ENVIRONMENT = {
    # Where workers compete for cores, OpenMP threads that spin cost a factor of ten. Read when torch is imported.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors come from memory that is kept, not from the system each time: convolutions take a fifth less time.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
_ANSWERS_WITHIN = 3.0
_SHARED_MEMORY = 128 * 2**20
_LONGEST_TEMP = 40
# Ray reads its token once a process, so that every cluster of this process has the same.
_TOKEN = secrets.token_hex(32)


@contextlib.contextmanager
def connected(address: str | None, cpus: float, gpus: float, shared: Path) -> Iterator[int]:
    """Starts Ray on this machine, or joins the cluster at `address`, for as long as the block lasts.

    Args:
        address: None for a cluster of one's own; else `HOST:PORT` or `auto`.
        cpus: CPUs that one trial takes.
        gpus: The share of a GPU that one trial takes.
        shared: The folder that every node must see, where there is more than one.

    Yields:
        How many trials fit at once.

    Raises:
        InputError: The address does not answer, no node has what a trial takes, or a node does not see `shared`.
    """
    if ray.is_initialized():
        yield _fitting(cpus, gpus)
        return
    with tempfile.TemporaryDirectory(prefix="sizer-ray-") as private, _environment(WORKER_ENVIRONMENT):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if address is None:
                    _start(Path(private))
                else:
                    _join(address)
            if address is not None:
                _check_shared(shared)
            yield _fitting(cpus, gpus)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets what workers on this machine inherit, unless the user has; afterwards these and Ray's own are gone again."""
    before = set(os.environ)
    os.environ.update({key: value for key, value in values.items() if key not in before})
    try:
        yield
    finally:
        for key in set(os.environ) - before:
            if key in values or key.startswith("RAY_"):
                del os.environ[key]


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Keeps what Ray's C++ side prints about an address from the user: the exception says it in one line."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _start(private: Path) -> None:
    # A local Ray makes a token for itself and would write it into the user's home.
    token = private / "token"
    token.write_text(_TOKEN)
    token.chmod(0o600)
    os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(token))
    # Sockets live under the temporary folder, and their paths may have 107 characters.
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_SHARED_MEMORY,
            _temp_dir="/tmp/ray" if len(root) > _LONGEST_TEMP else None,
        )
    except (OSError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise SizerError(f"Ray did not start on this machine: {line}") from None


def check_answers(address: str) -> None:
    """Makes sure that Ray listens at `HOST:PORT`, within seconds.

    Raises:
        InputError: It does not.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address} is no Ray address: give HOST:PORT, such as 10.0.0.1:6379, or auto")
    hint = "start one with `ray start --head`, or leave the address out"
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN) as connection:
            # Ray speaks gRPC. It would wait minutes for anything else that listens there, so it is greeted first.
            connection.settimeout(_ANSWERS_WITHIN)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            greeting = connection.recv(9)
    except OSError as error:
        raise InputError(f"no Ray at {address} ({error}): {hint}") from None
    if greeting[3:4] != b"\x04":
        raise InputError(f"what listens at {address} is no Ray: {hint}")


def _join(address: str) -> None:
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", f"{_ANSWERS_WITHIN:.0f}")
    try:
        with _no_stderr():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": WORKER_ENVIRONMENT},
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"no Ray at {address}: {line}") from None


def _fitting(cpus: float, gpus: float) -> int:
    nodes = [node["Resources"] for node in _nodes()]
    wanted = {kind: share for kind, share in (("CPU", cpus), ("GPU", gpus)) if share}
    fits = sum(int(min(node.get(kind, 0.0) / share for kind, share in wanted.items()) + 1e-9) for node in nodes)
    if fits < 1:
        most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
        raise InputError(
            f"no machine has {cpus:g} CPUs and {gpus:g} GPUs for a trial: the largest has"
            f" {most['CPU']:g} CPUs and {most['GPU']:g} GPUs"
        )
    return fits


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray has no types for it


def _check_shared(shared: Path) -> None:
    nodes = _nodes()
    if len(nodes) == 1 and nodes[0]["NodeManagerHostname"] == socket.gethostname():
        return
    mark = shared / f"seen-{secrets.token_hex(8)}"
    mark.touch()
    try:
        look: Any = ray.remote(num_cpus=0)(lambda path: Path(path).exists())
        for node in nodes:
            on = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            if not ray.get(look.options(scheduling_strategy=on).remote(str(mark)), timeout=60):
                raise InputError(
                    f"{node['NodeManagerHostname']} does not see {shared}: put the database where every node sees it"
                )
    finally:
        mark.unlink(missing_ok=True)
