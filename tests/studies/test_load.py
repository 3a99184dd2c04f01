"""Many trials: what is asked for often is found by an index, and a sweep's last trial costs what its first did."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from studies import selection
from studies.database import Database, locate
from studies.driver import Driver
from studies.lease import Lease
from studies.plan import Plan
from studies.reading import read_plan
from studies.standing import standing
from tests.studies.benches import DATA
from tests.studies.clusters import cluster
from tests.studies.filled import Trial, fill
from tests.studies.sweeps import Seen, check_whole, epoch, rows, small_plan

# Of these there is a row, or many, for every trial.
LARGE = ("trials", "trial_params", "trial_user_attributes", "trial_intermediate_values", "sizer_history")
ASKED: dict[str, Callable[[Database], object]] = {
    "best": lambda database: selection.best(database, "small"),
    "best within limits": lambda database: selection.best(database, "small", max_params=60_000, max_flops=100_000),
    "front": lambda database: selection.front(database, "small"),
    "status": lambda database: standing(database, "small"),
}


def many(count: int, first: int = 0) -> Iterator[Trial]:
    """Trials of two arms and four epochs: wider networks are better, some fail and some collapse."""
    drawn = np.random.default_rng(first)
    widths, luck = drawn.integers(1, 2000, (count, 4)).tolist(), drawn.normal(0, 0.02, (count, 4)).tolist()
    for at in range(count):
        epochs = [epoch(1 + k, 1 - widths[at][k] ** -0.5 + luck[at][k], widths[at][k]) for k in range(4)]
        arm = ("shrinknets", "fixed")[at % 2]
        if at % 97 == 5:
            yield Trial(arm, epochs, "FAIL", "diverged", "the loss became nan in epoch 5")
        elif at % 51 == 3:
            yield Trial(arm, epochs, "COMPLETE", "collapsed", "dense1 would have lost the last unit in epoch 5")
        else:
            yield Trial(arm, epochs)


def scans(database: Database, ask: Callable[[Database], object]) -> list[str]:
    """What of the large tables is gone through from end to end, as the database plans its answers."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def hear(_: object, __: object, statement: str, values: tuple[object, ...], *___: object) -> None:
        if not statement.startswith("set "):
            asked.append((statement, values))

    sa.event.listen(database.engine, "before_cursor_execute", hear)
    ask(database)
    sa.event.remove(database.engine, "before_cursor_execute", hear)
    explain, scan = ("explain query plan ", "SCAN ") if database.is_file else ("explain (costs off) ", "Seq Scan on ")
    with database.engine.connect() as connection:
        plans = [connection.exec_driver_sql(explain + statement, values).all() for statement, values in asked]
    lines = [str(step[-1]) for plan in plans for step in plan]
    return [
        line
        for line in lines
        if any(f"{scan}{table}" in line for table in LARGE) and "USING INDEX sizer_trials_collapsed" not in line
    ]


def milliseconds(database: Database, ask: Callable[[Database], object]) -> float:
    """The median of several times."""
    times = []
    for _ in range(21):
        began = time.perf_counter()
        ask(database)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def test_what_is_asked_for_often_is_found_by_an_index(database: Database) -> None:
    fill(database, small_plan(trials=300), many(300))
    if not database.is_file:  # which goes through small tables in any case, unless it is told not to
        off = "set enable_seqscan = off"
        sa.event.listen(database.engine, "begin", lambda connection: connection.exec_driver_sql(off))
    for ask in ASKED.values():
        assert scans(database, ask) == []


def test_a_trial_costs_the_driver_no_more_after_many(place: str) -> None:
    """Calls of functions are counted: time depends on what else the machine does. The front is as long at both ends."""
    plan = small_plan(trials=10_000)
    database = locate(place)[0]
    database.create()
    costs, repeated = [], itertools.cycle(many(30))
    for count in (30, 1500):
        fill(database, plan, itertools.islice(repeated, count))
        costs.append(calls_of_a_trial(database, plan))
    database.close()
    assert costs[1] < 1.15 * costs[0]


def calls_of_a_trial(database: Database, plan: Plan) -> int:
    """How many functions a driver calls to ask for a trial, write its epochs and end it, whatever weights it leaves."""
    with Lease(database, plan.name) as lease, database.guarded(lease.check):
        driver = Driver(plan, database, lease, Seen())
        driver.begin(DATA)
        calls = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in {"call", "c_call"}

        for _ in range(2):  # the first fills what is kept of statements
            calls = 0
            sys.setprofile(count)
            member = driver.next()
            assert member is not None
            driver.epoch(member["trial_id"], epoch(1, 0.01, 3000))
            driver.end(member["trial_id"], "complete", "")
            sys.setprofile(None)
    return calls


@pytest.mark.soak
@pytest.mark.load
def test_a_hundred_thousand_trials_are_answered_for_in_50_ms(database: Database) -> None:
    fill(database, small_plan(trials=50_000), many(100_000))
    took = {name: milliseconds(database, ask) for name, ask in ASKED.items()}
    print(database.url.get_backend_name(), {name: f"{each:.0f} ms" for name, each in took.items()})
    for ask in ASKED.values():
        assert scans(database, ask) == []
    assert max(took.values()) < 50


TRIALS = 1000
PLAN = """
name = "load"
data = "points.npz"
network = "mlp"
widths = [4]
epochs = 20
trials = {trials}
[arms.shrinknets]
lambda = {{ low = 1e-5, high = 1e-3 }}
[arms.fixed]
widths = {{ low = 2, high = 8 }}
"""


@pytest.mark.soak
@pytest.mark.load
@pytest.mark.timeout(900)
def test_a_thousand_trials_on_two_nodes(tmp_path: Path) -> None:
    (tmp_path / "load.toml").write_text(PLAN.format(trials=TRIALS // 2))
    drawn, sizes = np.random.default_rng(0), {"train": 80, "test": 20}
    points = {f"x_{part}": drawn.normal(size=(count, 4)).astype(np.float32) for part, count in sizes.items()}
    labels = {f"y_{part}": (points[f"x_{part}"][:, 0] > 0).astype(np.int64) for part in sizes}
    np.savez(tmp_path / "points.npz", **points, **labels)
    with cluster() as nodes, (tmp_path / "said").open("w") as said:
        nodes.start_head()
        nodes.add_node()
        command = [sys.executable, "-m", "dashboards", "sweep", "load.toml", "--address", nodes.address]
        environment = {**os.environ, **nodes.environment}
        sweep = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said, stderr=said)
        try:
            memory = [resident(sweep, tmp_path / "sizer.db", count) for count in (TRIALS // 10, TRIALS)]
            sweep.wait(timeout=120)
        finally:
            sweep.kill()
            sweep.wait()
    assert sweep.returncode == 0, (tmp_path / "said").read_text()
    (plan,) = read_plan(tmp_path / "load.toml")
    check_whole(tmp_path / "sizer.db", plan)
    ended = ends(tmp_path / "sizer.db")
    early, late = (seconds_a_trial(ended, share) for share in ((0.05, 0.15), (0.85, 0.95)))
    size = (tmp_path / "sizer.db").stat().st_size / TRIALS
    print(
        f"{TRIALS / (ended[-1] - ended[0]):.1f} trials a second; the driver has {memory[0]:.0f} MB after a tenth"
        f" and {memory[1]:.0f} MB at the end; {size / 1000:.1f} kB a trial;"
        f" at the end one takes {late / early:.2f} times as long as at the beginning ({1000 * early:.0f} ms)"
    )
    assert late / early < 1.2


def resident(process: subprocess.Popen[bytes], database: Path, trials: int) -> float:
    """The memory of a sweep's driver, in MB, when so many trials have ended; or shortly before its end."""
    found = 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            found = next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), found)
        with contextlib.suppress(sqlite3.Error):  # there is no table yet
            if rows(database, "select count(*) from trials where state = 'COMPLETE'") >= [(trials,)]:
                break
        time.sleep(0.5)
    return found


def ends(database: Path) -> list[float]:
    """When each trial ended, in seconds, one after the other."""
    told = rows(database, "select datetime_complete from trials order by datetime_complete")
    return [datetime.fromisoformat(each).timestamp() for (each,) in told]


def seconds_a_trial(ended: Sequence[float], share: tuple[float, float]) -> float:
    """What a trial takes in a part of the sweep: the median over ten groups of as many."""
    first, last = (int(len(ended) * at) for at in share)
    steps = np.linspace(first, last, 11).astype(int)
    return statistics.median(
        (ended[after] - ended[before]) / (after - before) for before, after in itertools.pairwise(steps)
    )
