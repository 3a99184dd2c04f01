"""An older database is upgraded with all its rows, a newer one refused; `sizer db check` says what is wrong."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dashboards.cli import main
from sizer.errors import InputError
from studies import tables
from studies.checkup import problems
from studies.database import Database, locate, named, version_of
from studies.lease import Lease
from studies.records import Records
from tests.postgres import Postgres
from tests.studies.sweeps import epoch, rows
from tests.studies.test_database import new_trial

# What schema 1 had, as the sizer that made it created it.
SCHEMA_1 = """
create table sizer_schema (version integer not null primary key);
create table sizer_plans (name varchar(255) not null primary key, spec text not null, data text not null,
  created varchar(32) not null);
create table sizer_history (trial_id integer not null,
  epoch integer not null, train_loss float, train_accuracy float, val_loss float,
  val_accuracy float, test_loss float, test_accuracy float, parameters bigint,
  flops bigint, training_flops bigint, seconds float, peak_memory bigint, units bigint, widths text,
  primary key (trial_id, epoch), foreign key(trial_id) references trials (trial_id) on delete cascade);
create table sizer_architectures (trial_id integer not null,
  position integer not null, layer varchar(255) not null, width bigint not null,
  primary key (trial_id, position), foreign key(trial_id) references trials (trial_id) on delete cascade);
create table sizer_weights (trial_id integer not null,
  epoch integer not null, artifact_id varchar(64) not null, sha256 varchar(64) not null,
  primary key (trial_id, epoch), foreign key(trial_id) references trials (trial_id) on delete cascade);
create table sizer_leases (plan varchar(255) not null primary key, token varchar(64) not null,
  host varchar(255) not null, machine varchar(255) not null, pid integer not null, started varchar(64) not null,
  since varchar(32) not null, expires float not null);
insert into sizer_schema values (1);
insert into sizer_plans values ('p', '{"arms": {"a": {}}}', '{}', '2026-01-01T00:00:00+00:00');
"""


@pytest.fixture
def old(place: str) -> Database:
    """A database of schema 1 that holds a trial of two epochs."""
    database = named(place)
    database._rdb(ready=False).engine.dispose()
    trial = new_trial(database)
    with database.engine.begin() as connection:
        for statement in SCHEMA_1.split(";")[:-1]:
            connection.exec_driver_sql(statement)
        for at in (1, 2):
            insert = "insert into sizer_history (trial_id, epoch, val_accuracy, widths) values ({}, {}, 0.5, '{{}}')"
            connection.exec_driver_sql(insert.format(trial, at))
        connection.exec_driver_sql(f"insert into sizer_weights values ({trial}, 2, 'some-file', 'some-hash')")
    database.close()
    return database


def test_an_older_database_is_refused_with_the_remedy_and_upgraded_with_its_rows(old: Database, place: str) -> None:
    with pytest.raises(InputError, match=r"older sizer \(schema 1, .*`sizer db upgrade`"):
        locate(place)
    assert version_of(named(place)) == 1
    old.upgrade()
    database, fresh = locate(place)
    assert not fresh
    assert rows(place, "select name, files from sizer_plans") == [("p", None)]
    assert rows(place, "select epoch, val_accuracy from sizer_history order by epoch") == [(1, 0.5), (2, 0.5)]
    assert rows(place, "select epoch, artifact_id, sha256 from sizer_weights") == [(2, "some-file", "some-hash")]
    old.upgrade()
    assert rows(place, "select version from sizer_schema") == [(tables.SCHEMA,)]
    with Lease(database, "p") as held:
        Records(database, held).epoch(1, epoch(3))
    database.close()


@pytest.mark.parametrize("upgraded", [False, True])
def test_the_steps_make_the_tables_that_the_code_reads(
    place: str, request: pytest.FixtureRequest, upgraded: bool
) -> None:
    if upgraded:
        request.getfixturevalue("old").upgrade()
    database = locate(place)[0]
    database.create()
    ours = {table.name for table in tables.OURS}

    def compared(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        table = name if kind == "table" else getattr(getattr(thing, "table", None), "name", None)
        return table in ours or (kind == "index" and str(name).startswith("sizer_"))

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": compared, "compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        indexes = {index["name"] for index in sa.inspect(connection).get_indexes("trials")}
    assert "sizer_trials_by_state" in indexes
    assert rows(place, "select version_num from sizer_alembic_version") == [(f"{tables.SCHEMA:04d}",)]
    database.close()


def test_what_is_best_under_both_limits_at_once_is_noted_by_the_upgrade(old: Database, place: str) -> None:
    """Schema 1 kept what is best under one limit at a time."""
    with old.engine.begin() as connection:
        connection.exec_driver_sql("update trials set state = 'COMPLETE'")
        connection.exec_driver_sql("delete from sizer_history")
        connection.exec_driver_sql("delete from sizer_weights")
        for at, accuracy, parameters, flops in ((1, 0.9, 500, 100), (2, 0.8, 100, 500), (3, 0.7, 200, 200),
                                                (4, 0.6, 300, 300)):  # fmt: skip
            connection.exec_driver_sql(
                "insert into sizer_history (trial_id, epoch, val_accuracy, parameters, flops, widths)"
                f" values (1, {at}, {accuracy}, {parameters}, {flops}, '{{}}')"
            )
        for at in (1, 2):
            connection.exec_driver_sql(f"insert into sizer_weights values (1, {at}, 'file-{at}', 'hash')")
    old.upgrade()
    kept = rows(place, "select epoch, artifact_id, study_id from sizer_weights order by epoch")
    assert kept == [(1, "file-1", 1), (2, "file-2", 1), (3, None, 1)]
    old.close()


def test_an_upgrade_that_fails_half_way_leaves_the_database_as_it_was(old: Database, place: str) -> None:
    with old.engine.begin() as connection:  # what the last step would make is there already
        connection.exec_driver_sql("create index sizer_trials_by_state on trials (study_id, state)")
    old.close()
    with pytest.raises(sa.exc.DBAPIError):
        old.upgrade()
    assert version_of(named(place)) == 1
    assert len(rows(place, "select * from sizer_plans")[0]) == 4
    with old.engine.begin() as connection:
        connection.exec_driver_sql("drop index sizer_trials_by_state")
    old.upgrade()
    assert version_of(named(place)) == tables.SCHEMA
    old.close()


def test_a_newer_database_is_refused(place: str) -> None:
    database = locate(place)[0]
    database.create()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("update sizer_schema set version = 99")
    for ask in (locate, named):
        with pytest.raises(InputError, match=r"made by a newer sizer \(schema 99"):
            version_of(ask(place))  # type: ignore[arg-type]
    database.close()


def test_the_commands_upgrade_and_check(old: Database, place: str, capsys: pytest.CaptureFixture[str],
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("SIZER_DB", place)

    def said(command: str, code: int) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["db", command])
        assert (ended.value.code or 0) == code
        return capsys.readouterr().out

    assert "run `sizer db upgrade`" in said("check", 1)
    assert said("upgrade", 0).endswith(f"schema {tables.SCHEMA}, was 1\n")
    assert said("upgrade", 0).endswith("schema as it was\n")
    found = said("check", 1)
    assert "p: 1 trials are RUNNING and nobody runs it: `sizer sweep` goes on with them" in found
    assert "some-file does not exist" in found
    with old.engine.begin() as connection:
        connection.exec_driver_sql("delete from sizer_weights")
        connection.exec_driver_sql("update trials set state = 'COMPLETE'")
    assert said("check", 0).endswith(f"schema {tables.SCHEMA}, all is well\n")
    old.close()


def test_an_empty_database_on_a_server_gets_its_tables(
    postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = postgres.create()
    monkeypatch.setenv("SIZER_DB", place)
    for after in (f"{tables.SCHEMA}, was empty", "as it was"):
        with pytest.raises(SystemExit, match="0"):
            main(["db", "upgrade"])
        assert capsys.readouterr().out.endswith(f"schema {after}\n")
    with pytest.raises(SystemExit, match="2"):
        main(["db", "upgrade", "--db", "nothing.db"])
    assert "there is nothing to upgrade" in capsys.readouterr().err


def test_rows_whose_trial_was_deleted_elsewhere_are_found(tmp_path: Path) -> None:
    place = tmp_path / "x.db"
    database = locate(place)[0]
    database.create()
    trial = new_trial(database)
    with Lease(database, "p") as held:
        Records(database, held).epoch(trial, epoch(1))
    with sqlite3.connect(place) as elsewhere:
        elsewhere.execute("delete from trials")
    elsewhere.close()
    (line,) = problems(database)
    assert "sizer_history: 1 rows of trials that were deleted" in line
    rows(place, line.split("`")[1])
    assert list(problems(database)) == []
