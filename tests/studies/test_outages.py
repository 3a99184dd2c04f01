"""A database that stops is waited for; what no waiting mends is one line; who lost the lease writes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from sizer.errors import InputError
from studies import outages
from studies.database import Database, locate
from studies.driver import Driver
from studies.lease import Lease
from studies.outages import passes, plain_errors, retried
from tests.postgres import Postgres
from tests.studies.benches import DATA
from tests.studies.sweeps import Seen, epoch, rows, small_plan
from tests.studies.test_driver import taken


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A PostgreSQL that this test may stop."""
    monkeypatch.chdir(tmp_path)
    with Postgres() as server:
        yield server


def test_every_write_of_a_driver_waits_for_a_server_that_restarts(own_server: Postgres) -> None:
    """It is stopped before each kind of write; every trial and epoch is there once afterwards."""
    place = own_server.create()
    database = locate(place)[0]
    database.create()
    plan, heard = small_plan(trials=2), Counter[str]()

    def away(line: str) -> None:
        heard[line.partition("(")[0]] += 1

    database.waiting = away

    def after_a_stop(act: Callable[[], object]) -> object:
        own_server.stop(signal.SIGKILL)
        back = threading.Timer(0.3, own_server.start)
        back.start()
        try:
            return act()
        finally:
            back.join()

    with Lease(database, plan.name) as lease, database.guarded(lease.check):
        driver = Driver(plan, database, lease, Seen())
        after_a_stop(lambda: driver.begin(DATA))
        member = after_a_stop(lambda: taken(driver))
        assert isinstance(member, dict)
        after_a_stop(lambda: driver.epoch(member["trial_id"], epoch(1)))
        after_a_stop(lambda: driver.end(member["trial_id"], "complete", ""))
        while (left := driver.next()) is not None:
            driver.epoch(left["trial_id"], epoch(1))
            driver.end(left["trial_id"], "complete", "")
    assert heard["the database does not answer "] >= 4
    assert rows(place, "select state, count(*) from trials group by state") == [("COMPLETE", 4)]
    assert rows(place, "select count(*), count(distinct trial_id) from sizer_history") == [(4, 4)]
    database.close()


def test_a_trial_whose_answer_was_lost_is_not_asked_for_twice(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is written, and the connection breaks before the driver hears of it."""
    database = locate(place)[0]
    database.create()
    plan = small_plan(arms={"shrinknets": {"enqueue": [1e-3]}}, trials=3)
    with Lease(database, plan.name) as lease:
        driver = Driver(plan, database, lease, Seen())
        driver.begin(DATA)
        real, broken = (
            optuna.Study.ask,
            sa.exc.OperationalError("", {}, Exception("locked"), connection_invalidated=True),
        )
        refusals = iter([broken, None, broken, None, broken])

        def ask(study: optuna.Study) -> optuna.Trial:
            trial = real(study)
            if (refusal := next(refusals, None)) is not None:
                raise refusal
            return trial

        monkeypatch.setattr(optuna.Study, "ask", ask)
        monkeypatch.setattr(outages, "passes", lambda error: True)
        members = [taken(driver) for _ in range(3)]
        assert driver.next() is None
    assert [member["number"] for member in members] == [0, 1, 2]
    assert members[0]["knob"] == 1e-3
    assert len({member["knob"] for member in members}) == 3
    assert rows(place, "select number, state from trials order by number") == [(k, "RUNNING") for k in range(3)]
    database.close()


def test_a_wait_can_be_ended_and_is_not_for_ever() -> None:
    refusal = sa.exc.OperationalError("select 1", {}, Exception("server closed the connection"))

    def refuse() -> None:
        raise refusal

    def enough(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match=r"does not answer \(server closed the connection"):
        retried(refuse, enough)
    began = time.monotonic()
    with pytest.raises(sa.exc.OperationalError):
        retried(refuse, lasts=0.3)
    assert 0.2 < time.monotonic() - began < 2


def test_a_wrong_password_and_a_missing_database_are_said_at_once_and_never_with_the_password(
    postgres: Postgres,
) -> None:
    right = postgres.create()
    for wrong, says in (
        (right.replace(postgres.password, "no-" + postgres.password), "password authentication failed"),
        (postgres.url("nosuch"), 'database "nosuch" does not exist'),
        (postgres.url("x").replace(str(postgres.port), "1"), "refused"),
    ):
        began = time.monotonic()
        with pytest.raises(InputError, match=says) as caught:
            locate(wrong)
        assert time.monotonic() - began < 5
        assert postgres.password not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "waits"),
    [
        (sa.exc.IntegrityError("", {}, Exception("duplicate key")), False),
        (sa.exc.ProgrammingError("", {}, Exception("no such table")), False),
        (sa.exc.OperationalError("", {}, Exception("the database system is starting up")), True),
        (sa.exc.TimeoutError("QueuePool limit"), True),
        (ValueError("locked"), False),
    ],
)
def test_only_what_may_pass_is_waited_for(error: Exception, waits: bool) -> None:
    assert passes(error) is waits
    wrapped = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = error
    assert passes(wrapped) is waits


def test_a_driver_that_slept_through_its_lease_writes_nothing_when_it_wakes(place: str) -> None:
    """A process is stopped, another takes over when the lease lapses, and the first goes on."""
    database = locate(place)[0]
    database.create()
    script = f"""
import sys, time
from studies import lease
lease.LASTS = 2.0
lease.RENEWED_EVERY = 0.5
from studies.database import open_database
from studies.driver import Driver
from tests.studies.sweeps import Seen, epoch, small_plan
from tests.studies.benches import DATA
from tests.studies.test_driver import taken
database = open_database({place!r})
held = lease.Lease(database, "small")
with database.guarded(held.check):
    driver = Driver(small_plan(), database, held, Seen())
    driver.begin(DATA)
    member = taken(driver)
    print("held", flush=True)
    sys.stdin.readline()
    study = driver._studies["shrinknets"]
    for write in (
        lambda: driver.epoch(member["trial_id"], epoch(1)),
        lambda: database.storage.set_trial_intermediate_value(member["trial_id"], 1, 0.9),
        lambda: database.storage.set_trial_user_attr(member["trial_id"], "late", True),
        lambda: study.tell(member["number"], 0.9),
        lambda: study.ask(),
        lambda: driver.next(),
        lambda: driver.end(member["trial_id"], "complete", ""),
    ):
        try:
            write()
            print("wrote")
        except Exception as error:
            print(type(error).__name__)
"""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as first:  # fmt: skip
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.send_signal(signal.SIGSTOP)
        try:
            wait_for_lapse(database)
            before = content(place)
            with Lease(database, "small"):
                before["sizer_leases"] = rows(place, "select token from sizer_leases")
                first.send_signal(signal.SIGCONT)
                said, _ = first.communicate("go on\n", timeout=60)
                assert said.split() == ["LostDatabaseError"] * 7
                assert content(place) == before
        finally:
            first.kill()
    database.close()


def wait_for_lapse(database: Database) -> None:
    """Waits until the lease in the database is over."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with database.engine.connect() as connection:
            if connection.exec_driver_sql("select expires from sizer_leases").scalar_one() < time.time():
                return
        time.sleep(0.1)
    raise AssertionError("the lease did not lapse")


def content(place: str) -> dict[str, list[tuple[object, ...]]]:
    """What a driver may have changed."""
    order = {"trials": "trial_id", "trial_values": "trial_id", "trial_intermediate_values": "trial_id, step",
             "trial_user_attributes": "trial_id, key", "sizer_history": "trial_id, epoch"}  # fmt: skip
    read = {table: rows(place, f"select * from {table} order by {by}") for table, by in order.items()}
    return {**read, "sizer_leases": rows(place, "select token from sizer_leases")}


def test_what_a_database_refuses_is_one_line(postgres: Postgres) -> None:
    database = locate(postgres.create())[0]
    with pytest.raises(InputError, match=r"refused: relation .* does not exist") as caught, plain_errors(database):
        Lease(database, "p")
    assert "\n" not in str(caught.value)
    assert postgres.password not in str(caught.value)
    database.close()
