"""What the tables say of an evaluation's trials and their epochs, row by row; `studies.query` makes frames of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import select

from sizer.errors import unknown
from studies import tables
from studies.database import Database
from studies.plan import study_name


class Read(NamedTuple):
    """What was read.

    Attributes:
        trials: Of each trial what Optuna's tables say, in the order of arms and numbers.
        epochs: A trial's id -> its rows of `sizer_history`, in order.
    """

    trials: list[dict[str, Any]]
    epochs: dict[int, list[dict[str, Any]]]


def plan_names(opened: Database) -> list[str]:
    """The evaluations, in the order they began."""
    with opened.engine.connect() as connection:
        return list(connection.scalars(select(tables.plans.c.name).order_by(tables.plans.c.created)))


def plan_and_data(opened: Database, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan of an evaluation and what its data was, as they were written down.

    Raises:
        UnknownNameError: There is no such evaluation.
    """
    with opened.engine.connect() as connection:
        row = connection.execute(tables.plans.select().where(tables.plans.c.name == name)).first()
    if row is None:
        raise unknown("evaluation", name, plan_names(opened))
    return json.loads(row.spec), json.loads(row.data)


def studies_of(connection: sa.Connection, plan_name: str, arms: Sequence[str]) -> dict[int, str]:
    """The ids of arms' studies, as far as they have begun -> the arm."""
    names = {study_name(plan_name, arm): arm for arm in arms}
    columns = tables.studies.c
    query = select(columns.study_id, columns.study_name).where(columns.study_name.in_(names))
    return {study_id: names[name] for study_id, name in connection.execute(query)}


def read(opened: Database, plan_name: str, trials: Sequence[int] | None = None, *, kept: bool = False) -> Read:
    """What the database says of an evaluation's trials and their epochs.

    Args:
        opened: The database.
        plan_name: The evaluation.
        trials: Only of these, by their ids.
        kept: Only the epochs in `sizer_weights`.
    """
    spec, _ = plan_and_data(opened, plan_name)
    order = list(spec["arms"])
    history, weights = tables.history, tables.weights
    drawn: dict[int, dict[str, float]] = {}
    said: dict[int, dict[str, Any]] = {}
    written: dict[int, list[dict[str, Any]]] = {}
    with opened.engine.connect() as connection:
        arms = studies_of(connection, plan_name, order)
        ours = select(tables.trials.c.trial_id).where(tables.trials.c.study_id.in_(arms))

        def rows_of(table: sa.Table) -> Any:
            first, query = table, select(table)
            if kept and table is history:
                same = (weights.c.trial_id == history.c.trial_id) & (weights.c.epoch == history.c.epoch)
                first, query = weights, query.join_from(weights, history, same)
            query = query.where(first.c.trial_id.in_(ours if trials is None else trials))
            return connection.execute(query.order_by(*first.primary_key)).mappings()

        rows = [row for row in rows_of(tables.trials) if row["study_id"] in arms]
        for row in rows_of(tables.trial_params):
            drawn.setdefault(row["trial_id"], {})[row["param_name"]] = row["param_value"]
        for row in rows_of(tables.trial_user_attributes):
            if row["key"] != "traceback":
                said.setdefault(row["trial_id"], {})[row["key"]] = json.loads(row["value_json"])
        for row in rows_of(history):
            written.setdefault(row["trial_id"], []).append({**row, "widths": json.loads(row["widths"])})
    listed = [
        _trial(arms[row["study_id"]], spec, row, drawn.get(row["trial_id"], {}), said.get(row["trial_id"], {}))
        for row in rows
    ]
    return Read(sorted(listed, key=lambda trial: (order.index(trial["arm"]), trial["number"])), written)


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
    }  # fmt: skip
