"""A sweep in a process of its own, to be killed, interrupted and listened to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Sweep:
    """A sweep in a process of its own, and what it says."""

    def __init__(self, database: Path | str, environment: dict[str, str], **values: Any) -> None:
        arguments = ["-m", "tests.studies.sweeps", str(database), json.dumps(values)]
        command = [sys.executable, "-W", "error", *arguments]
        environment = {"PYTHONPATH": str(ROOT), **environment}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[list[str]] = []

    def until(self, kind: str, count: int = 1) -> None:
        """Reads on until so many more lines of a kind have come."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n").split("\t"))
            count -= self.lines[-1][0] == kind
            if not count:
                return
        raise AssertionError(f"it ended without {kind}: {self.lines[-3:]} {self.end()[1]}")

    def of(self, kind: str) -> list[list[str]]:
        """The lines of one kind, without their kind."""
        return [line[1:] for line in self.lines if line[0] == kind]

    def kill(self) -> None:
        """kill -9 of the driver alone."""
        self.process.kill()
        self.end()

    def end(self) -> tuple[int, str]:
        """Waits for the end: exit code and what stands on stderr."""
        out, error = self.process.stdout, self.process.stderr
        assert out is not None
        assert error is not None
        # Not communicate(): lines that came together with the last one that was read would be lost to it.
        late = threading.Timer(120, self.process.kill)
        late.start()
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(error.read)
            self.lines += [line.split("\t") for line in out.read().splitlines()]
        late.cancel()
        return self.process.wait(), said.result()


@contextlib.contextmanager
def sweep(database: Path | str, environment: dict[str, str] | None = None, **values: Any) -> Iterator[Sweep]:
    """A sweep that does not outlive its test."""
    started = Sweep(database, environment or {}, **values)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.process.kill()
        started.process.communicate()


def workers_of(driver: int) -> list[int]:
    """The processes below a driver in which trials are trained; Ray names them after what they run."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        with contextlib.suppress(OSError):
            if above == driver and Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::ImplicitFunc"):
                found.append(pid)
    return found
