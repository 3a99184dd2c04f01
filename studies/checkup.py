"""Looks a database over: its versions, what a lost driver left, and whether the kept weights are what was written."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from sizer.errors import InputError
from studies import query, weights
from studies.artifacts import files_of
from studies.database import Database, version_of
from studies.outages import plain_errors
from studies.stored import evaluation, plan_names
from studies.tables import SCHEMA, architectures, history, studies, trials
from studies.tables import weights as kept


def problems(database: Database) -> Iterator[str]:
    """What is not as it should be, a line each with its remedy; none where all is well.

    Raises:
        InputError: The database does not answer, is no sweep's, or a newer sizer's.
    """
    version = version_of(database)
    if version is None:
        raise InputError(f"no sweep in {database.url}: `sizer sweep PLAN --db ...` makes one")
    if version < SCHEMA:
        yield f"schema {version}, this sizer works with {SCHEMA}: back it up, then run `sizer db upgrade`"
        return
    with plain_errors(database):
        yield from _damaged(database)
        yield from _abandoned(database)
        yield from _without_trial(database)
        yield from _lost_weights(database)


def _damaged(database: Database) -> Iterator[str]:
    if not database.is_file:
        return
    with database.engine.connect() as connection:
        for line in connection.exec_driver_sql("pragma integrity_check").scalars():
            if line != "ok":
                yield f"the file is damaged ({line}): restore it from a backup"


def _abandoned(database: Database) -> Iterator[str]:
    counted = {}
    with database.engine.connect() as connection:
        for name in plan_names(connection):
            ours = evaluation(connection, name).studies
            running = sa.select(sa.func.count()).where(trials.c.study_id.in_(ours), trials.c.state == "RUNNING")
            counted[name] = connection.scalar(running)
    for name, count in counted.items():
        if count and query.driver(database, name) == query.NOBODY:
            yield f"{name}: {count} trials are RUNNING and nobody runs it: `sizer sweep` goes on with them"


def _without_trial(database: Database) -> Iterator[str]:
    with database.engine.connect() as connection:
        for table in (history, architectures, kept):
            alone = (
                sa.select(sa.func.count())
                .select_from(table)
                .where(table.c.trial_id.not_in(sa.select(trials.c.trial_id)))
            )
            if count := connection.scalar(alone):
                yield (
                    f"{table.name}: {count} rows of trials that were deleted without foreign keys:"
                    f" `delete from {table.name} where trial_id not in (select trial_id from trials)`"
                )


def _lost_weights(database: Database) -> Iterator[str]:
    with database.engine.connect() as connection:
        ours = kept.join(trials, trials.c.trial_id == kept.c.trial_id)
        named = ours.join(studies, studies.c.study_id == trials.c.study_id)
        columns = sa.select(kept.c.trial_id, kept.c.epoch, studies.c.study_name).select_from(named)
        rows = connection.execute(columns.where(kept.c.artifact_id.is_not(None))).all()
    for row in rows:
        files = files_of(database, row.study_name.rpartition("/")[0])
        try:
            weights.file_of(database, files, row.trial_id, row.epoch)
        except InputError as error:
            yield f"{error}: restore {files.place} from a backup, or train that trial again"
