"""Ray itself: a cluster of this machine's own, or one that the user named; quiet, and gone afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import secrets
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
    # What Ray itself prints when a worker dies; the sweep says it, in a line.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402  # after the variables that it reads

from sizer.errors import InputError, SizerError  # noqa: E402  # as above
from studies import access, credentials, jobs, nodes  # noqa: E402  # as above
from studies.files import Files  # noqa: E402  # as above

WORKER_ENVIRONMENT = {
    # Where workers compete for cores, OpenMP threads that spin cost a factor of ten. Read when torch is imported.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors come from memory that is kept, not from the system each time: convolutions take a fifth less time.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # How long a trial that was ended early may take to leave its worker. After that Tune drops the next one, unsaid.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}
_SHARED_MEMORY = 128 * 2**20
_LONGEST_TEMP = 40
_LONGEST_LINE = 300
EXCLUDED = ["__pycache__", "*.pyc"]
"""What of our packages does not travel."""
# What the processes of Ray have no need of: the database's password, the service's token, and any other that is named
# or written as one. A cloud's own keys stay: workers may need them for their files.
_NAMES = re.compile(r"SIZER_.*(TOKEN|SECRET).*|PGPASS.*|.*(PASSWORD|PASSWD|PASSPHRASE).*", re.I)
_LOGIN = re.compile(r"://[^/\s@]*:[^/\s@]+@")
# Ray reads its token once a process, so that every cluster of this process has the same.
_TOKEN = secrets.token_hex(32)


@contextlib.contextmanager
def connected(address: str | None, cpus: float, gpus: float, shared: Files | None, memory: int = 0) -> Iterator[int]:
    """Starts Ray on this machine, or joins the cluster at `address`, for as long as the block lasts.

    Args:
        address: None for a cluster of one's own; else `HOST:PORT` or `auto`, on a machine of that cluster.
        cpus: CPUs that one trial takes.
        gpus: The share of a GPU that one trial takes.
        shared: The files that every node of a cluster must see; None if nobody said where they are.
        memory: Bytes that trials share on each node.

    Yields:
        How many trials fit at once.

    Raises:
        InputError: The address does not answer, wants another token or is open to everybody, no node has what a trial
            takes, or a node cannot run our code or does not see `shared`.
    """
    if address is not None:
        access.check(address)
    if ray.is_initialized():
        yield nodes.fitting(cpus, gpus)
        return
    with tempfile.TemporaryDirectory(prefix="sizer-ray-") as private, _environment(WORKER_ENVIRONMENT):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if address is None:
                    _start(Path(private), memory)
                else:
                    _join(address)
            if address is not None:
                access.check_closed(*_place())
                nodes.check(shared)
            yield nodes.fitting(cpus, gpus)
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


def code(*packages: str) -> list[str]:
    """Where our packages lie, as `py_modules` of a runtime_env: nodes need the libraries only."""
    found = [importlib.util.find_spec(package) for package in packages]
    return [str(Path(spec.origin).parent) for spec in found if spec is not None and spec.origin is not None]


@contextlib.contextmanager
def _without_secrets() -> Iterator[None]:
    """Takes passwords and tokens out of the environment: what is started meanwhile, and all below it, has none."""
    named = {key for key in os.environ if key in credentials.SECRETS or _NAMES.fullmatch(key)}
    hidden = {key: value for key, value in os.environ.items() if key in named or _LOGIN.search(value)}
    for key in hidden:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(hidden)


def carried(value: Any) -> Any:
    """Puts a value where Ray carries it to each node that asks, once; its reference, to be passed on."""
    return ray.put(value)


def _start(private: Path, memory: int) -> None:
    # A local Ray makes a token for itself and would write it into the user's home.
    token = private / "token"
    token.write_text(_TOKEN)
    token.chmod(0o600)
    os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(token))
    # Sockets live under the temporary folder, and their paths may have 107 characters.
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        with _without_secrets():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_SHARED_MEMORY + memory + memory // 8,
                _temp_dir="/tmp/ray" if len(root) > _LONGEST_TEMP else None,
            )
    except (OSError, RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise SizerError(f"Ray did not start on this machine: {line}") from None


def _join(address: str) -> None:
    if address != "auto":
        access.check_node(address)
    brought = {} if jobs.brought_code() else {"py_modules": code("sizer", "studies"), "excludes": EXCLUDED}
    try:
        with _no_stderr():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": WORKER_ENVIRONMENT, **brought},
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"no Ray at {address}: {' '.join(str(error).split())[:_LONGEST_LINE]}") from None


def _place() -> tuple[str, set[str], str]:
    """The head's address, those of all nodes, and that of the node which this process is connected to."""
    addresses = {node["NodeManagerAddress"] for node in nodes.alive()}
    here: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray has no types for it
    return ray.get_runtime_context().gcs_address, addresses, here
