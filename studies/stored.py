"""What the tables say of an evaluation's trials and their epochs, row by row; `studies.query` makes frames of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import select

from sizer.errors import UnknownNameError, unknown
from studies import tables
from studies.database import Database, open_database
from studies.outages import plain_errors
from studies.plan import study_name

_SAID = ("fold", "learning_rate", "status", "reason", "seed", "device", "notes", "final_latency_ms", "tunes")
"""Of what a trial says of itself, what is read; the rest stands in our own tables, or is long."""


class Evaluation(NamedTuple):
    """An evaluation as it was written down.

    Attributes:
        name: Its name.
        spec: Its plan.
        data: What its data was.
        studies: The ids of its arms' studies, as far as they have begun -> the arm.
    """

    name: str
    spec: dict[str, Any]
    data: dict[str, Any]
    studies: dict[int, str]

    @property
    def arms(self) -> list[str]:
        """The names of its arms, in order."""
        return list(self.spec["arms"])

    def epochs(self, arm: str) -> int:
        """How many epochs a trial of an arm has, where it is no step of a path."""
        return int(self.spec["arms"][arm].get("epochs", self.spec["epochs"]))


class Read(NamedTuple):
    """What was read.

    Attributes:
        trials: Of each trial what Optuna's tables say, in the order of arms and numbers.
        epochs: A trial's id -> its rows of `sizer_history`, in order.
    """

    trials: list[dict[str, Any]]
    epochs: dict[int, list[dict[str, Any]]]


class Brief(NamedTuple):
    """Of each trial only what stands for it.

    Attributes:
        trials: As in `Read`.
        best, last: A trial's id -> its row of `sizer_history` of the best epoch, and of the last, its widths unread.
    """

    trials: list[dict[str, Any]]
    best: dict[int, dict[str, Any]]
    last: dict[int, dict[str, Any]]


@contextlib.contextmanager
def reading(db: str | Path | Database) -> Iterator[sa.Connection]:
    """A connection to read by, in one transaction; what a database or a disk refuses is one line."""
    opened = open_database(db)
    with plain_errors(opened), opened.engine.connect() as connection:
        yield connection


def plan_names(connection: sa.Connection) -> list[str]:
    """The evaluations, in the order they began."""
    return list(connection.scalars(select(tables.plans.c.name).order_by(tables.plans.c.created)))


def evaluation(connection: sa.Connection, name: str) -> Evaluation:
    """An evaluation.

    Raises:
        UnknownNameError: There is none of that name.
    """
    row = connection.execute(tables.plans.select().where(tables.plans.c.name == name)).first()
    if row is None:
        raise unknown("evaluation", name, plan_names(connection))
    spec, columns = json.loads(row.spec), tables.studies.c
    names = {study_name(name, arm): arm for arm in spec["arms"]}
    query = select(columns.study_id, columns.study_name).where(columns.study_name.in_(names))
    studies = {study_id: names[study] for study_id, study in connection.execute(query)}
    return Evaluation(name, spec, json.loads(row.data), studies)


def plan_of(study: str, plans: Sequence[str]) -> str:
    """The evaluation that a study is an arm of, by its name; empty where it is somebody else's."""
    plan = study.rpartition("/")[0]
    return plan if plan in plans else ""


def evaluation_of(connection: sa.Connection, trial_id: int) -> Evaluation:
    """The evaluation that a trial belongs to.

    Raises:
        UnknownNameError: There is no such trial, or it is of a study that is not ours.
    """
    trials, studies = tables.trials.c, tables.studies.c
    found = select(studies.study_name).join(tables.trials, trials.study_id == studies.study_id)
    study = connection.scalar(found.where(trials.trial_id == trial_id))
    if study is None:
        raise UnknownNameError(f"the database has no trial {trial_id}: the pages of its evaluations list theirs")
    plan = plan_of(str(study), plan_names(connection))
    if not plan:
        raise UnknownNameError(f"trial {trial_id} is of the study {study!r}, which is no evaluation of sizer's")
    return evaluation(connection, plan)


def read(connection: sa.Connection, of: Evaluation, trials: Sequence[int] | None = None, *, kept: bool = False) -> Read:
    """What the database says of an evaluation's trials and their epochs.

    Args:
        connection: As `reading` gives one.
        of: The evaluation.
        trials: Only of these, by their ids.
        kept: Only the epochs in `sizer_weights`.
    """
    history, weights = tables.history, tables.weights
    query, first = select(history), history
    if kept:
        same = (weights.c.trial_id == history.c.trial_id) & (weights.c.epoch == history.c.epoch)
        query, first = query.join_from(weights, history, same), weights
    query = query.where(first.c.trial_id.in_(_ours(of) if trials is None else trials)).order_by(*first.primary_key)
    written: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(query).mappings():
        written.setdefault(row["trial_id"], []).append(_epoch(row))
    return Read(_trials(connection, of, trials), written)


def brief(connection: sa.Connection, of: Evaluation, trials: Sequence[int] | None = None) -> Brief:
    """What stands for each trial of an evaluation: of those that have ended not all epochs are looked at.

    Args:
        connection: As `reading` gives one.
        of: The evaluation.
        trials: Only of these, by their ids.
    """
    history, said = tables.history.c, tables.trial_user_attributes.c
    ours = _ours(of) if trials is None else trials
    every = tables.history.alias()
    newest = select(sa.func.max(every.c.epoch)).where(every.c.trial_id == tables.trials.c.trial_id).scalar_subquery()
    at_end = select(tables.history).join_from(
        tables.trials,
        tables.history,
        (tables.trials.c.trial_id == history.trial_id) & (history.epoch == newest),
    )
    last = {
        row["trial_id"]: dict(row)
        for row in connection.execute(at_end.where(tables.trials.c.trial_id.in_(ours))).mappings().all()
    }
    # A trial that has ended says which epoch was its best; of others it is looked for. What others say is no number:
    # without the case PostgreSQL may read that first, and fail.
    chosen = sa.case((said.key == "best_epoch", sa.cast(said.value_json, sa.Integer)))
    at_best = select(tables.history).join_from(
        tables.trial_user_attributes,
        tables.history,
        (said.trial_id == history.trial_id) & (chosen == history.epoch),
    )
    running = select(tables.trials.c.trial_id).where(tables.trials.c.state == "RUNNING")
    told = at_best.where(said.key == "best_epoch", said.trial_id.in_(ours), said.trial_id.not_in(running))
    best = {row["trial_id"]: _epoch(row) for row in connection.execute(told).mappings()}
    untold = [trial for trial in last if trial not in best]
    for row in connection.execute(select(tables.history).where(history.trial_id.in_(untold))).mappings():
        known = best.get(row["trial_id"])
        best[row["trial_id"]] = min([each for each in (known, dict(row)) if each is not None], key=order)
    best |= {trial: _epoch(best[trial]) for trial in untold}
    return Brief(_trials(connection, of, trials), best, last)


def order(epoch: Mapping[Any, Any]) -> tuple[float, int, int]:
    """As `sizer.best_epoch` orders epochs; one whose accuracy is no number comes last."""
    accuracy = epoch["val_accuracy"]
    return (float("inf") if accuracy is None else -accuracy, epoch["parameters"], epoch["epoch"])


def _ours(of: Evaluation) -> sa.Select[tuple[Any]]:
    return select(tables.trials.c.trial_id).where(tables.trials.c.study_id.in_(of.studies))


def _epoch(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {**row, "widths": json.loads(row["widths"])}


def spent(connection: sa.Connection, study_id: int, states: Sequence[str] = tables.ENDED) -> float:
    """FLOPs of training that the trials of a study in these states have spent."""
    trials, history = tables.trials.c, tables.history.c
    each = (
        select(sa.func.max(history.training_flops).label("flops"))
        .join_from(tables.trials, tables.history, history.trial_id == trials.trial_id)
        .where(trials.study_id == study_id, trials.state.in_(states))
        .group_by(trials.trial_id)
        .subquery()
    )
    return float(connection.scalar(select(sa.func.sum(each.c.flops))) or 0)


def _trials(connection: sa.Connection, of: Evaluation, trials: Sequence[int] | None) -> list[dict[str, Any]]:
    """The trials, in the order of arms and numbers."""
    ours = _ours(of) if trials is None else trials

    def rows_of(table: sa.Table, *more: sa.ColumnElement[bool]) -> Any:
        query = select(table).where(table.c.trial_id.in_(ours), *more)
        return connection.execute(query.order_by(*table.primary_key)).mappings().all()

    drawn: dict[int, dict[str, float]] = {}
    said: dict[int, dict[str, Any]] = {}
    value = cache(json.loads)  # most trials say the same
    rows = [row for row in rows_of(tables.trials) if row["study_id"] in of.studies]
    for row in rows_of(tables.trial_params):
        drawn.setdefault(row["trial_id"], {})[row["param_name"]] = row["param_value"]
    for row in rows_of(tables.trial_user_attributes, tables.trial_user_attributes.c.key.in_(_SAID)):
        said.setdefault(row["trial_id"], {})[row["key"]] = value(row["value_json"])
    listed = [
        _trial(of.studies[row["study_id"]], of.spec, row, drawn.get(row["trial_id"], {}), said.get(row["trial_id"], {}))
        for row in rows
    ]
    places = {arm: place for place, arm in enumerate(of.arms)}
    return sorted(listed, key=lambda trial: (places[trial["arm"]], trial["number"]))


def _trial(
    arm: str, spec: Mapping[str, Any], row: Mapping[Any, Any], drawn: Mapping[str, float], said: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns that Optuna's tables give."""
    # An arm has one number of its own at most: its method's knob, or the weight decay of fixed-l2.
    named = [name for name in drawn if name not in {"depth", "learning_rate"} and not name.startswith("width_")]
    found = spec["arms"][arm]
    rate = drawn.get("learning_rate", said.get("learning_rate", found.get("learning_rate")))
    return {
        "arm": arm, "method": found["method"], "stage": found.get("stage", ""), "trial_id": row["trial_id"],
        "number": row["number"], "point": row["number"] // (spec.get("folds") or 1), "fold": said.get("fold"),
        "learning_rate": spec["learning_rate"] if rate is None else rate,
        "state": row["state"], "status": said.get("status", ""), "reason": said.get("reason", ""),
        "knob_name": named[0] if named else "", "knob": drawn[named[0]] if named else float("nan"),
        "seed": said.get("seed"), "device": said.get("device", ""), "notes": said.get("notes", {}),
        "latency_ms": said.get("final_latency_ms"), "tunes": said.get("tunes"),
    }  # fmt: skip
