"""The database is ours or left alone, one driver writes it, and deleting a trial deletes what belongs to it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from sizer.errors import InputError
from studies import lease as leases
from studies.database import Database, locate, named, open_database
from studies.lease import Lease
from studies.outages import LostDatabaseError, plain_errors
from studies.records import Records
from studies.tables import SCHEMA
from tests.studies.sweeps import epoch, rows


@pytest.fixture
def file(tmp_path: Path) -> Database:
    """The same in a file."""
    made = locate(tmp_path / "x.db")[0]
    made.create()
    return made


def test_a_reader_elsewhere_takes_no_locks_from_a_writer_that_looked_twice(tmp_path: Path) -> None:
    """A file closed by plain open() loses the process's locks on it: another process would then delete the log."""
    path = tmp_path / "x.db"
    database, _ = locate(path)
    database.create()
    read = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*c.execute(sys.argv[2])); c.close()"
    ask = [sys.executable, "-c", read, str(path)]
    with database.engine.connect() as connection:  # it stays open in the pool
        connection.execute(sa.text("select * from sizer_schema")).all()
    locate(path)
    subprocess.run([*ask, "select * from sizer_schema"], check=True, capture_output=True)
    with database.engine.begin() as connection:
        connection.execute(sa.text("insert into sizer_plans values ('p', '{}', '{}', 'now', null)"))
    seen = subprocess.run([*ask, "select name from sizer_plans"], check=True, capture_output=True, text=True)
    assert seen.stdout.strip() == "('p',)"


def new_trial(database: Database, study: str = "p/a") -> int:
    """A RUNNING trial's id."""
    opened = optuna.create_study(storage=database.storage, study_name=study, load_if_exists=True)
    return opened.ask()._trial_id


def test_every_connection_to_a_file_has_wal_and_foreign_keys(file: Database) -> None:
    engines = [file.engine, file.storage._backend.engine]  # type: ignore[attr-defined]  # Optuna's own engine
    for engine in engines:
        with engine.connect() as connection:
            said = [connection.exec_driver_sql(f"pragma {name}").scalar() for name in
                    ("journal_mode", "synchronous", "foreign_keys")]  # fmt: skip
            assert said == ["wal", 1, 1]


def test_making_the_tables_again_changes_nothing(database: Database, place: str) -> None:
    new_trial(database)
    database.create()
    assert rows(place, "select count(*) from trials") == [(1,)]


def _create(path: str) -> None:
    locate(path)[0].create()


@pytest.mark.soak
def test_several_processes_may_make_the_tables_at_once(place: str) -> None:
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=_create, args=(place,)) for _ in range(2)]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0, 0]
    assert rows(place, "select version from sizer_schema") == [(SCHEMA,)]


def test_an_optuna_database_takes_our_tables_beside_its_own(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path}/o.db", study_name="theirs").enqueue_trial({"x": 1})
    with pytest.raises(InputError, match="no sweep in"):
        open_database(tmp_path / "o.db")
    database, fresh = locate(tmp_path / "o.db")
    assert fresh
    database.create()
    assert rows(tmp_path / "o.db", "select study_name from studies") == [("theirs",)]
    assert open_database(tmp_path / "o.db").engine is not None


def test_what_is_not_ours_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database at all, but long enough to look at")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table songs (title text)")
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("create table sizer_schema (version integer)")
        newer.execute("insert into sizer_schema values (99)")
    other.close()
    newer.close()
    for name, says in (
        ("text.db", "is not an SQLite database"),
        ("other.db", r"holds other tables \(songs\)"),
        ("newer.db", "made by a newer sizer"),
    ):
        before = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        with pytest.raises(InputError, match=says) as caught:
            locate(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer.db", "other.db", "text.db"]


def test_what_can_be_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "no" / "x.db", "nosuch://host/db", "sqlite://", "postgresql+nosuch://h/d"):
        with pytest.raises(InputError) as caught:
            locate(source)
        assert "\n" not in str(caught.value)


def _write_too_much(database: Database) -> None:
    with plain_errors(database), database.engine.begin() as full:
        full.exec_driver_sql("pragma max_page_count = 1")
        full.execute(sa.text("insert into sizer_plans values ('x', :long, '', '', null)"), {"long": "x" * 10**6})


def test_a_full_disk_is_one_line(file: Database) -> None:
    with pytest.raises(InputError, match="refused: database or disk is full"):
        _write_too_much(file)


def test_deleting_a_trial_deletes_its_rows(database: Database, place: str) -> None:
    trial = new_trial(database)
    with Lease(database, "p") as held:
        Records(database, held).epoch(trial, epoch(1))
        Records(database, held).architecture(trial, {"dense1": 8})
    assert rows(place, "select layer, width from sizer_architectures") == [("dense1", 8)]
    optuna.delete_study(study_name="p/a", storage=database.storage)
    assert rows(place, "select * from sizer_history") == rows(place, "select * from sizer_architectures") == []


def test_an_epoch_that_comes_again_replaces_its_row(database: Database) -> None:
    trial = new_trial(database)
    with Lease(database, "p") as held:
        records = Records(database, held)
        for accuracy in (0.1, 0.2):
            records.epoch(trial, epoch(1, accuracy))
        assert records.epochs(trial) == [epoch(1, 0.2)]


def test_a_loss_that_is_no_number_is_null_in_sql(database: Database, place: str) -> None:
    trial = new_trial(database)
    with Lease(database, "p") as held:
        Records(database, held).epoch(trial, epoch(1, test_loss=float("nan")))
        (read,) = Records(database, held).epochs(trial)
    assert read.test_loss != read.test_loss
    assert rows(place, "select test_loss from sizer_history") == [(None,)]


def test_a_second_driver_is_told_who_holds_the_evaluation(database: Database) -> None:
    says = rf"p is being run by process {os.getpid()} on .* since 2"
    with Lease(database, "p"), Lease(database, "q"), pytest.raises(InputError, match=says):
        Lease(database, "p")
    Lease(database, "p").release()


def test_a_killed_drivers_lease_is_taken_over_at_once(database: Database, place: str) -> None:
    script = f"""
import os, time
from studies.database import open_database
from studies.lease import Lease
Lease(open_database({place!r}), "p")
print("held", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {holder.pid}"):
            Lease(database, "p")
        holder.kill()
        holder.wait()
        began = time.monotonic()
        Lease(database, "p").release()
        assert time.monotonic() - began < 2


def test_a_lease_from_another_machine_is_waited_for(database: Database) -> None:
    with Lease(database, "p"):
        with database.engine.begin() as connection:
            changed = {"machine": "elsewhere", "host": "elsewhere", "token": "theirs", "expires": time.time() + 1.0}
            connection.execute(leases.leases.update().values(changed))
        notes: list[str] = []
        Lease(database, "p", notes.append).release()
    assert notes == [line for line in notes if "was held by elsewhere" in line]
    assert len(notes) == 1


def test_who_lost_the_lease_writes_nothing_more(database: Database, place: str) -> None:
    trial = new_trial(database)
    with Lease(database, "p") as held:
        with database.engine.begin() as connection:
            connection.execute(leases.leases.update().values(token="another's"))
        with pytest.raises(LostDatabaseError, match="another driver took over p"):
            Records(database, held).epoch(trial, epoch(1))
    assert rows(place, "select * from sizer_history") == []


def test_a_lease_is_renewed_while_nothing_is_reported(
    database: Database, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWED_EVERY", 0.05)
    with Lease(database, "p"):
        (first,) = rows(place, "select expires from sizer_leases")
        time.sleep(0.4)
        (later,) = rows(place, "select expires from sizer_leases")
    assert later > first


def test_the_files_of_a_servers_database_lie_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("postgresql://sizer@127.0.0.1/d").files == tmp_path / "d.files"
    monkeypatch.setenv("SIZER_FILES", str(tmp_path / "shared"))
    assert named("postgresql://sizer@127.0.0.1/d").files == tmp_path / "shared" / "d.files"
    assert named(tmp_path / "x.db").files == tmp_path / "x.files"
