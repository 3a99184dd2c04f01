"""Where an evaluation stands: its trials by state, counted by the database; no epoch is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from studies import query, tables
from studies.arms import planned
from studies.database import Database, open_database
from studies.outages import plain_errors
from studies.plan import study_name

STARTING, RUNNING, STOPPED, DONE, FAILED = "starting", "running", "stopped", "done", "failed"
COLLAPSED = "collapsed"


@dataclass(frozen=True)
class ArmStanding:
    """An arm, or a stage of one, and its trials by state.

    Attributes:
        arm: Its name.
        stage: What a stage looks for; "" of an arm.
        planned: Trials that are to be.
        complete: Those that ended with a result, `collapsed` ones among them.
        collapsed: Those in which a layer emptied.
        pruned: Those that a pruner ended early.
        failed: Those that gave no network.
        running: Those that a driver trains, or one that was killed left.
        waiting: Those that are still to begin.
        epochs: Epochs written, of all trials.
    """

    arm: str
    stage: str
    planned: int
    complete: int
    collapsed: int
    pruned: int
    failed: int
    running: int
    waiting: int
    epochs: int


@dataclass(frozen=True)
class Unusual:
    """A trial that failed or collapsed, and why."""

    arm: str
    number: int
    status: str
    reason: str


@dataclass(frozen=True)
class Standing:
    """Where an evaluation stands.

    Attributes:
        name: The evaluation's name.
        state: `done`, `running`, or `stopped`: not done, and nobody runs it. Of one that the database does not know:
            `starting`, or `failed`, when it ended before it began.
        driver: Who runs it, in words.
        data: What it trains on.
        network: What it trains.
        arms: The arms and their stages, in the order in which they run.
        unusual: Trials that failed or collapsed.
    """

    name: str
    state: str
    driver: str
    data: str
    network: str
    arms: tuple[ArmStanding, ...]
    unusual: tuple[Unusual, ...]

    @property
    def held(self) -> bool:
        """Whether somebody runs it, or is about to."""
        return self.state in (STARTING, RUNNING) or (self.state == DONE and self.driver != query.NOBODY)


def standing(db: str | Path | Database, name: str) -> Standing:
    """Where an evaluation stands.

    Raises:
        InputError: No such database or evaluation.
    """
    opened = open_database(db)
    spec = query.spec(opened, name)
    driver = query.driver(opened, name)
    with plain_errors(opened), opened.engine.connect() as connection:
        counts, epochs = _counted(connection, name, spec)
        unusual = _unusual(connection, name, spec)
    arms = tuple(_arm(spec, arm, counts[arm], epochs[arm]) for arm in spec["arms"])
    left = sum(arm.running + arm.waiting for arm in arms)
    state = DONE if not left else STOPPED if driver == query.NOBODY else RUNNING
    return Standing(name, state, driver, str(spec["data"]), str(spec["network"]), arms, unusual)


def not_begun(spec: Mapping[str, Any], state: str, driver: str) -> Standing:
    """The same of a plan that the database does not know yet: all of its trials are to do."""
    arms = tuple(_arm(spec, arm, Counter(), 0) for arm in spec["arms"])
    return Standing(str(spec["name"]), state, driver, str(spec["data"]), str(spec["network"]), arms, ())


def _arm(spec: Mapping[str, Any], arm: str, counts: Mapping[tuple[str, str], int], epochs: int) -> ArmStanding:
    states: Counter[str] = Counter()
    for (state, _), count in counts.items():
        states[state] += count
    whole = planned(spec, arm)
    ended = sum(count for state, count in states.items() if state not in ("RUNNING", "WAITING"))
    return ArmStanding(
        arm=arm,
        stage=str(spec["arms"][arm].get("stage", "")),
        planned=whole,
        complete=states["COMPLETE"],
        collapsed=counts.get(("COMPLETE", COLLAPSED), 0),
        pruned=states["PRUNED"],
        failed=states["FAIL"],
        running=states["RUNNING"],
        waiting=max(0, whole - ended - states["RUNNING"]),
        epochs=epochs,
    )


def _counted(
    connection: sa.Connection, name: str, spec: Mapping[str, Any]
) -> tuple[dict[str, Counter[tuple[str, str]]], Counter[str]]:
    """arm -> (state, status) -> trials; and arm -> epochs."""
    arms = {study_name(name, arm): arm for arm in spec["arms"]}
    status = _said("status")
    study, state, told = tables.studies.c.study_name, tables.trials.c.state, status.c.value_json
    ours = tables.trials.join(tables.studies, tables.studies.c.study_id == tables.trials.c.study_id)
    grouped = select(study, state, told, sa.func.count()).select_from(ours.outerjoin(status, _of_trial(status)))
    counts: dict[str, Counter[tuple[str, str]]] = {arm: Counter() for arm in spec["arms"]}
    for named, in_state, text, count in connection.execute(grouped.where(study.in_(arms)).group_by(study, state, told)):
        counts[arms[named]][in_state, _text(text)] += count
    epochs = select(study, sa.func.count()).select_from(ours.join(tables.history, _of_trial(tables.history)))
    rows = connection.execute(epochs.where(study.in_(arms)).group_by(study))
    return counts, Counter({arms[named]: count for named, count in rows})


def _unusual(connection: sa.Connection, name: str, spec: Mapping[str, Any]) -> tuple[Unusual, ...]:
    arms = {study_name(name, arm): arm for arm in spec["arms"]}
    status, reason = _said("status"), _said("reason")
    ours = tables.trials.join(tables.studies, tables.studies.c.study_id == tables.trials.c.study_id)
    columns = (tables.studies.c.study_name, tables.trials.c.number, status.c.value_json, reason.c.value_json)
    found = select(*columns).select_from(ours.outerjoin(status, _of_trial(status)).outerjoin(reason, _of_trial(reason)))
    odd = (tables.trials.c.state == "FAIL") | (status.c.value_json == json.dumps(COLLAPSED))
    rows = connection.execute(found.where(tables.studies.c.study_name.in_(arms) & odd)).all()
    order = list(arms)
    rows = sorted(rows, key=lambda row: (order.index(row[0]), row[1]))
    return tuple(Unusual(arms[study], number, _text(said) or "failed", _text(why)) for study, number, said, why in rows)


def _said(key: str) -> sa.Subquery:
    """trial_id, and what its trial says under a key, as JSON."""
    attributes = tables.trial_user_attributes
    return select(attributes.c.trial_id, attributes.c.value_json).where(attributes.c.key == key).subquery()


def _of_trial(other: sa.FromClause) -> sa.ColumnElement[bool]:
    return other.c.trial_id == tables.trials.c.trial_id


def _text(value: str | None) -> str:
    return str(json.loads(value)) if value else ""
