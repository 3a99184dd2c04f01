"""Where an evaluation stands: its trials by state, counted by the database in an index; what else it takes is little.

However many trials there are, only those that run, failed or collapsed are looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from studies import query, stored, tables, target
from studies.arms import affordable, planned
from studies.database import Database, open_database
from studies.records import EPOCHS

STARTING, RUNNING, STOPPED, DONE, FAILED = "starting", "running", "stopped", "done", "failed"
STATES = (*tables.ENDED, "RUNNING")
COLLAPSED = "collapsed"
LATEST = 20
"""How many trials that failed or collapsed are named."""
# The plus keeps SQLite from going through all trials of a study where it should look for a few of all studies.
_STUDY: sa.ColumnElement[int] = sa.literal_column("+trials.study_id")


@dataclass(frozen=True)
class ArmStanding:
    """An arm, or a stage of one, and its trials by state.

    Attributes:
        arm: Its name.
        stage: What a stage looks for; "" of an arm.
        planned: Trials that are to be; no more than there are where an arm's target is settled.
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
        unusual: The latest trials that failed or collapsed, `LATEST` at most; how many there are, the arms say.
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
    driver = query.driver(opened, name)
    with stored.reading(opened) as connection:
        found = stored.evaluation(connection, name)
        spec, ids = found.spec, found.studies
        counts, epochs = _counted(connection, ids), _epochs(connection, ids)
        unusual = _unusual(connection, ids, list(spec["arms"]))
        settled = target.settled(connection, spec, {f"{name}/{arm}": arm for arm in spec["arms"]})
        most = spec.get("max_training_flops")
        costs = {
            arm: _cost(connection, spec, arm, study, counts.get(arm, {}), epochs[arm])
            for study, arm in (ids.items() if most else ())
        }
    arms = tuple(
        _arm(spec, arm, counts.get(arm, {}), epochs[arm], arm in settled, costs.get(arm)) for arm in spec["arms"]
    )
    left = sum(arm.running + arm.waiting for arm in arms)
    state = DONE if not left else STOPPED if driver == query.NOBODY else RUNNING
    return Standing(name, state, driver, str(spec["data"]), str(spec["network"]), arms, unusual)


def not_begun(spec: Mapping[str, Any], state: str, driver: str) -> Standing:
    """The same of a plan that the database does not know yet: all of its trials are to do."""
    arms = tuple(_arm(spec, arm, {}, 0) for arm in spec["arms"])
    return Standing(str(spec["name"]), state, driver, str(spec["data"]), str(spec["network"]), arms, ())


def _arm(
    spec: Mapping[str, Any],
    arm: str,
    counts: Mapping[str, int],
    epochs: int,
    settled: bool = False,
    cost: tuple[float, float] | None = None,
) -> ArmStanding:
    begun = sum(counts.get(state, 0) for state in STATES)
    whole = begun if settled else planned(spec, arm)
    if cost and not settled and "stage" not in spec["arms"][arm]:
        whole = min(whole, affordable(spec["max_training_flops"], *cost, begun))
    return ArmStanding(
        arm=arm,
        stage=str(spec["arms"][arm].get("stage", "")),
        planned=whole,
        complete=counts.get("COMPLETE", 0),
        collapsed=counts.get(COLLAPSED, 0),
        pruned=counts.get("PRUNED", 0),
        failed=counts.get("FAIL", 0),
        running=counts.get("RUNNING", 0),
        waiting=max(0, whole - begun),
        epochs=epochs,
    )


def _cost(
    connection: sa.Connection, spec: Mapping[str, Any], arm: str, study: int, counts: Mapping[str, int], epochs: int
) -> tuple[float, float] | None:
    """So many trials of an arm took so many FLOPs: those that have ended, or what ran of the first so far."""
    if flops := stored.spent(connection, study):
        return sum(counts.get(state, 0) for state in tables.ENDED), flops
    if flops := stored.spent(connection, study, ("RUNNING",)):
        return epochs / (spec["arms"][arm].get("epochs") or spec["epochs"]), flops
    return None


def _counted(connection: sa.Connection, arms: Mapping[int, str]) -> Mapping[str, Mapping[str, int]]:
    """arm -> state -> trials, and of the complete ones those that collapsed; `arms` has the arms by their studies."""
    trials, study = tables.trials.c, tables.studies.c.study_id
    # Each state by itself: grouped, PostgreSQL would rather go through the table than through the index.
    numbers = [
        select(sa.func.count())
        .where(trials.study_id == study, trials.state == state)
        .correlate(tables.studies)
        .scalar_subquery()
        .label(state)
        for state in STATES
    ]
    found = connection.execute(select(study, *numbers).where(study.in_(arms))).mappings()
    counts = {arms[row["study_id"]]: Counter({state: row[state] for state in STATES}) for row in found}
    collapsed = _collapsed(select(_STUDY, sa.func.count()), arms).group_by(_STUDY)
    for study_id, count in connection.execute(collapsed):
        counts[arms[study_id]][COLLAPSED] = count
    return counts


def _epochs(connection: sa.Connection, arms: Mapping[int, str]) -> Counter[str]:
    """arm -> epochs: of the trials that have ended, what their driver says, and those of the trials that run."""
    trials, said = tables.trials.c, tables.study_user_attributes.c
    ended = select(said.study_id, said.value_json).where(said.study_id.in_(arms), said.key == EPOCHS)
    known = {study: int(json.loads(text)) for study, text in connection.execute(ended)}
    counts = Counter({arms[study]: count for study, count in known.items()})
    written = select(trials.study_id, sa.func.count()).join(
        tables.history, tables.history.c.trial_id == trials.trial_id
    )
    # An older driver said nothing: then all are counted.
    for studies, which in ((set(known), trials.state == "RUNNING"), (set(arms) - set(known), sa.true())):
        running = written.where(trials.study_id.in_(studies), which).group_by(trials.study_id)
        for study, count in connection.execute(running) if studies else ():
            counts[arms[study]] += count
    return counts


def _unusual(connection: sa.Connection, arms: Mapping[int, str], order: Sequence[str]) -> tuple[Unusual, ...]:
    trials, said = tables.trials.c, tables.trial_user_attributes.c
    columns = select(trials.trial_id, trials.study_id, trials.number)
    failed = columns.where(trials.study_id.in_(arms), trials.state == "FAIL").order_by(trials.trial_id.desc())
    collapsed = _collapsed(columns, arms).order_by(said.trial_id.desc())
    found = {row.trial_id: row for asked in (failed, collapsed) for row in connection.execute(asked.limit(LATEST))}
    latest = sorted(found)[-LATEST:]
    told = select(said.trial_id, said.key, said.value_json).where(
        said.trial_id.in_(latest), said.key.in_(("status", "reason"))
    )
    texts = {(trial, key): str(json.loads(text)) for trial, key, text in connection.execute(told)}
    unusual = [
        Unusual(arms[row.study_id], row.number, texts.get((row.trial_id, "status"), "failed"),
                texts.get((row.trial_id, "reason"), ""))
        for row in (found[trial] for trial in latest)
    ]  # fmt: skip
    return tuple(sorted(unusual, key=lambda trial: (order.index(trial.arm), trial.number)))


def _collapsed(columns: Any, arms: Mapping[int, str]) -> Any:
    """Of the complete trials those that collapsed, found by the index of just these."""
    trials, said = tables.trials.c, tables.trial_user_attributes
    joined = columns.join_from(said, tables.trials, said.c.trial_id == trials.trial_id)
    return joined.where(tables.collapsed, trials.state == "COMPLETE", _STUDY.in_(arms))
