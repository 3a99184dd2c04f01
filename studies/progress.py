"""What of an evaluation trains now and how long the rest takes; and what else the database holds."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import select

from studies import stored, tables
from studies.database import Database
from studies.lease import SINCE, is_held
from studies.standing import Standing


@dataclass(frozen=True)
class Running:
    """A trial that trains, or that a killed driver left.

    Attributes:
        trial_id, arm, number: The trial.
        epoch: The last one that is written; 0 before the first.
        epochs: How many it is to have; of a path's steps, its first one's.
    """

    trial_id: int
    arm: str
    number: int
    epoch: int
    epochs: int


@dataclass(frozen=True)
class Study:
    """A study of the database.

    Attributes:
        study_id: Optuna's.
        name: Its name.
        trials: How many it has.
        plan: The evaluation that it is an arm of; empty where it is somebody else's.
    """

    study_id: int
    name: str
    trials: int
    plan: str = ""


def running(db: str | Path | Database, name: str) -> list[Running]:
    """The trials that train, in the order of their ids."""
    trials, history = tables.trials.c, tables.history.c
    with stored.reading(db) as connection:
        of = stored.evaluation(connection, name)
        last = select(sa.func.max(history.epoch)).where(history.trial_id == trials.trial_id).scalar_subquery()
        rows = connection.execute(
            select(trials.trial_id, trials.study_id, trials.number, last.label("epoch"))
            .where(trials.study_id.in_(of.studies), trials.state == "RUNNING")
            .order_by(trials.trial_id)
        ).all()
    arms = of.studies
    return [
        Running(row.trial_id, arms[row.study_id], row.number, row.epoch or 0, of.epochs(arms[row.study_id]))
        for row in rows
    ]


def seconds_left(db: str | Path | Database, standing: Standing) -> float | None:
    """How long the rest takes, if trials go on ending as often as since its driver began; None where nothing ended yet.

    Nobody knows it of an evaluation that nobody runs, either.
    """
    trials, lease = tables.trials.c, tables.leases.c
    with stored.reading(db) as connection:
        held = connection.execute(select(tables.leases).where(lease.plan == standing.name)).first()
        if held is None or not is_held(held):
            return None
        since = datetime.datetime.strptime(held.since, SINCE)
        of = stored.evaluation(connection, standing.name)
        ended = connection.scalar(
            select(sa.func.count()).where(trials.study_id.in_(of.studies), trials.datetime_complete >= since)
        )
    if not ended:
        return None
    left = sum(arm.running + arm.waiting for arm in standing.arms)
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return left * (now - since).total_seconds() / ended


def studies_of(db: str | Path | Database, name: str) -> dict[str, Study]:
    """Arm -> its study, as far as it has begun."""
    with stored.reading(db) as connection:
        of = stored.evaluation(connection, name)
        found = {each.study_id: each for each in _studies(connection, of.studies)}
    return {arm: found[study] for study, arm in of.studies.items()}


def others(db: str | Path | Database) -> list[Study]:
    """The studies that belong to no evaluation: somebody else's."""
    with stored.reading(db) as connection:
        return [each for each in _studies(connection) if not each.plan]


def study(db: str | Path | Database, study_id: int) -> Study | None:
    """A study; None where there is none."""
    with stored.reading(db) as connection:
        return next(iter(_studies(connection, [study_id])), None)


def _studies(connection: sa.Connection, ids: Collection[int] | None = None) -> list[Study]:
    trials, studies = tables.trials.c, tables.studies.c
    count = select(sa.func.count()).where(trials.study_id == studies.study_id).scalar_subquery()
    asked = select(studies.study_id, studies.study_name, count).order_by(studies.study_id)
    rows = connection.execute(asked if ids is None else asked.where(studies.study_id.in_(ids))).all()
    plans = stored.plan_names(connection)
    return [Study(*row, stored.plan_of(row.study_name, plans)) for row in rows]
