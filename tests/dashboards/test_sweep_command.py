"""`sizer sweep` as a user runs it: a process of its own, with Ray, to its end, again, and interrupted."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studies.sweeps import rows

pytestmark = pytest.mark.alone

PLAN = """
name = "tiny"
data = "digits"
network = "mlp"
widths = [12]
epochs = {epochs}
trials = 1
[arms.shrinknets]
lambda = {{ low = 1e-3, high = 1e-2 }}
[arms.fixed]
widths = {{ low = 4, high = 16 }}
"""
COMMAND = [sys.executable, "-c", "from dashboards.cli import main; main()", "sweep", "tiny.toml"]


def written(folder: Path, epochs: int) -> dict[str, str]:
    """Writes the plan; gives the environment to sweep it in."""
    (folder / "tiny.toml").write_text(PLAN.format(epochs=epochs))
    return {**os.environ, "COLUMNS": "80", "HOME": str(folder)}


def swept(folder: Path, environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_sweep_trains_compares_and_says_what_comes_next_and_is_then_done(tmp_path: Path) -> None:
    environment = written(tmp_path, epochs=2)
    first = swept(tmp_path, environment)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert "trials done: shrinknets 0/1, fixed 0/1" in lines
    assert (
        sum(line.startswith(("shrinknets 1/1: trial 0 complete", "fixed 1/1: trial 0 complete")) for line in lines) == 2
    )
    assert len(lines) < 80
    assert "Test accuracy (%) at the best validation epoch" in first.stdout
    assert "Best of tiny by validation accuracy" in first.stdout
    assert " sizer best tiny --out tiny-best" in first.stdout
    before = (tmp_path / "sizer.db").read_bytes()
    again = swept(tmp_path, environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert "All 2 trials of tiny are done already; nothing was run." in again.stdout
    assert "Best of tiny by validation accuracy" in again.stdout
    assert (tmp_path / "sizer.db").read_bytes() == before
    changed = swept(tmp_path, environment, "--epochs", "3")
    assert (changed.returncode, changed.stderr.count("\n")) == (2, 1)
    assert "epochs: was 2, now 3" in changed.stderr


@pytest.mark.soak
def test_an_interrupted_sweep_ends_within_ten_seconds_and_says_how_to_go_on(tmp_path: Path) -> None:
    with sweeping(tmp_path) as running:
        asked = time.monotonic()
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        assert time.monotonic() - asked < 10
    assert running.returncode == 130
    assert said == "sizer: interrupted with 2 of 2 trials to do; the same command goes on where it was\n"


@pytest.mark.soak
def test_a_sweep_is_stopped_from_elsewhere_and_goes_on_later(tmp_path: Path) -> None:
    with sweeping(tmp_path) as running:
        asked = time.monotonic()
        stop = [*COMMAND[:3], "stop", "tiny", "--wait"]
        stopped = subprocess.run(stop, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert time.monotonic() - asked < 20
        assert (stopped.returncode, stopped.stderr) == (0, "")
        asked_it, ended = stopped.stdout.splitlines()
        assert asked_it.startswith(f"asked process {running.pid} on ")
        assert ended == "stopped; the same sweep command goes on where it was"
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    says = r"sizer: stopped from elsewhere \(`sizer stop` on .*\) with 2 of 2 trials to do; the same command goes on"
    assert re.match(says, said)
    assert said.count("\n") == 1
    assert rows(tmp_path / "sizer.db", "select distinct state from trials") == [("RUNNING",)]
    again = subprocess.run(stop, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (again.returncode, again.stderr) == (2, "sizer: nobody runs tiny: there is nothing to stop\n")


@contextlib.contextmanager
def sweeping(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep without end that has told of an epoch."""
    environment = written(folder, epochs=100_000)
    running = subprocess.Popen(
        COMMAND, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 90
        while not _epochs(folder / "sizer.db"):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield running
    finally:
        running.kill()
        running.communicate()


def _epochs(database: Path) -> int:
    if not database.exists() or not rows(database, "select 1 from sqlite_master where name = 'sizer_history'"):
        return 0
    return int(rows(database, "select count(*) from sizer_history")[0][0])
