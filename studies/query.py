"""Reads an evaluation out of its database: trials, history, the best architecture, the front. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import select

from sizer import Architecture
from sizer import front as front_of
from sizer.errors import InputError, unknown
from studies import tables, weights
from studies.database import Database, open_database
from studies.lease import is_held
from studies.outages import plain_errors
from studies.plan import study_name

TRIALS = (
    "arm", "method", "stage", "trial_id", "number", "point", "fold", "state", "status", "reason", "knob_name", "knob",
    "learning_rate", "seed", "epoch",
    "val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops", "units", "training_flops",
    "seconds", "epochs", "peak_memory", "widths", "device", "notes",
)  # fmt: skip
NOBODY = "nobody runs it"
HISTORY = (
    "arm", "trial_id", "number", "knob", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    "test_loss", "test_accuracy", "parameters", "flops", "training_flops", "seconds", "peak_memory", "widths",
)  # fmt: skip
_WHOLE = ("point", "fold", "epoch", "parameters", "flops", "units", "training_flops", "epochs", "peak_memory", "seed")
_AT_BEST = ("epoch", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops", "units", "widths")


def plan_names(db: str | Path | Database) -> list[str]:
    """The evaluations in a database, in the order they began."""
    opened = open_database(db)
    with plain_errors(opened), opened.engine.connect() as connection:
        return list(connection.scalars(select(tables.plans.c.name).order_by(tables.plans.c.created)))


def spec(db: str | Path | Database, name: str) -> dict[str, Any]:
    """The plan of an evaluation, as `Plan.spec()` gave it.

    Raises:
        InputError: The database has no such evaluation; the line lists those it has.
    """
    return _plan_and_data(db, name)[0]


def data(db: str | Path | Database, name: str) -> dict[str, Any]:
    """What the data of an evaluation was, as `studies.sweep.describe()` said: task, shapes, rows, preprocessing.

    Raises:
        InputError: The database has no such evaluation.
    """
    return _plan_and_data(db, name)[1]


def driver(db: str | Path | Database, name: str) -> str:
    """Who runs an evaluation now, in words: "run by process 4711 on HOST since ..." or "nobody runs it"."""
    opened = open_database(db)
    with plain_errors(opened), opened.engine.connect() as connection:
        held = connection.execute(tables.leases.select().where(tables.leases.c.plan == name)).first()
    if held is None or not is_held(held):
        return NOBODY
    return f"run by process {held.pid} on {held.host} since {held.since}"


def trials(db: str | Path | Database, plan_name: str) -> pd.DataFrame:
    """One row a trial of every arm, in the order of arms and numbers; its figures are those of its best epoch.

    Columns: arm, method, stage (what a stage looks for; "" of an arm), trial_id, number; point and fold (of
    cross-validation, else the number and none); state (Optuna's: COMPLETE, PRUNED, FAIL, RUNNING, WAITING), status
    (complete, collapsed, pruned, diverged, error, or "" while it runs), reason; knob_name and knob (of `fixed` "" and
    NaN, of `fixed-l2` its weight decay), learning_rate, seed; epoch, val_accuracy, test_accuracy, val_loss, test_loss,
    parameters, flops (forward, one sample), units and widths (layer -> width) at the best epoch; training_flops,
    seconds, epochs and peak_memory (bytes) of the whole trial; device; notes (what the method noted, such as its
    rounds). A trial without an epoch has no figures.

    Raises:
        InputError: No such database or evaluation.
    """
    opened = open_database(db)
    with plain_errors(opened):
        read = _read(opened, plan_name)
    rows = []
    for trial in read.trials:
        epochs = read.epochs.get(trial["trial_id"], [])
        best = min(epochs, key=_order, default=None)
        row = {**trial, **{name: best[name] if best else None for name in _AT_BEST}}
        row["widths"] = best["widths"] if best else {}
        row["epochs"] = len(epochs)
        for total in ("training_flops", "seconds", "peak_memory"):
            row[total] = max((epoch[total] for epoch in epochs), default=None)
        rows.append(row)
    return frame(rows, TRIALS)


def history(db: str | Path | Database, plan_name: str) -> pd.DataFrame:
    """One row an epoch of every trial, in order; the columns mean what they mean in `sizer_history`.

    Raises:
        InputError: No such database or evaluation.
    """
    opened = open_database(db)
    with plain_errors(opened):
        read = _read(opened, plan_name)
    rows = [
        {**epoch, **{name: trial[name] for name in ("arm", "number", "knob")}}
        for trial in read.trials
        for epoch in read.epochs.get(trial["trial_id"], [])
    ]
    return frame(rows, HISTORY)


def best(
    db: str | Path | Database,
    plan_name: str,
    arm: str | None = None,
    max_params: int | None = None,
    max_flops: int | None = None,
) -> pd.Series[Any]:
    """The (trial, epoch) of highest validation accuracy, under a budget from the best epoch that fits it.

    Args:
        db: The database.
        plan_name: The evaluation.
        arm: Only this arm; all arms where None.
        max_params: Parameters at most.
        max_flops: FLOPs of one sample's forward pass at most.

    Returns:
        The row: the columns of `history`, then method, knob_name, seed, status, fold, learning_rate and units.

    Raises:
        InputError: Nothing fits; the line names the nearest. Or there is no complete trial, or no such arm.
    """
    rows = _usable(db, plan_name, arm)
    fits = rows
    for column, limit in (("parameters", max_params), ("flops", max_flops)):
        fits = fits if limit is None else fits[fits[column] <= limit]
    if not fits.empty:
        return _first(fits)
    # How many times too large, in whichever of the limits is exceeded most.
    excess = pd.concat(
        [rows[column] / limit for column, limit in (("parameters", max_params), ("flops", max_flops)) if limit], axis=1
    ).max(axis=1) if max_params or max_flops else rows["parameters"].astype(float)  # fmt: skip
    near = _first(rows[excess == excess.min()])
    both = ((max_params, "parameters"), (max_flops, "FLOPs"))
    limits = [f"{limit:,} {what}" for limit, what in both if limit is not None]
    raise InputError(
        f"no epoch of {plan_name} fits {' and '.join(limits)}: the nearest is {near.arm} trial {near.number}, epoch"
        f" {near.epoch}, with {near.parameters:,} parameters, {near.flops:,} FLOPs, validation {near.val_accuracy:.4f}"
    )


def epoch(db: str | Path | Database, plan_name: str, trial_id: int, number: int) -> pd.Series[Any]:
    """One epoch of a complete trial, as `best` gives one.

    Raises:
        UnknownNameError: The evaluation has no such complete trial, or the trial no such epoch.
    """
    rows = _usable(db, plan_name, None)
    own = rows[rows["trial_id"] == trial_id]
    if own.empty:
        raise unknown(f"complete trial of {plan_name}", str(trial_id), map(str, rows["trial_id"].unique()))
    found = own[own["epoch"] == number]
    if found.empty:
        raise unknown(f"epoch of trial {trial_id}", str(number), map(str, own["epoch"]))
    return found.iloc[0]


def front(db: str | Path | Database, plan_name: str, arm: str | None = None) -> pd.DataFrame:
    """The (trial, epoch) rows that no other beats in validation accuracy at as few parameters, or at as few FLOPs.

    Args:
        db: The database.
        plan_name: The evaluation.
        arm: Only this arm; all arms against each other where None.

    Returns:
        Rows as `best` returns one, by parameters.
    """
    rows = _usable(db, plan_name, arm)
    figures = (rows[column] for column in ("val_accuracy", "parameters", "flops"))
    points = [_Point(*point) for point in zip(range(len(rows)), *figures, strict=True)]
    chosen = [point.epoch for point in front_of(points)]
    return rows.iloc[chosen].sort_values(["parameters", "flops"]).reset_index(drop=True)


def architecture(db: str | Path | Database, plan_name: str, row: pd.Series[Any]) -> tuple[Architecture, Path]:
    """The architecture of a row of `best` or `front`, and the file of its weights, for `sizer.save`.

    Raises:
        InputError: Its weights were not kept, or are no longer what was written.
    """
    opened = open_database(db)
    planned, described = _plan_and_data(opened, plan_name)
    with plain_errors(opened):
        file = weights.file_of(opened, int(row["trial_id"]), int(row["epoch"]))
    info = {
        "study": f"{plan_name}/{row['arm']}", "trial": int(row["number"]), "epoch": int(row["epoch"]),
        **{name: float(row[name]) for name in ("val_accuracy", "test_accuracy")},
        **{name: int(row[name]) for name in ("parameters", "flops")},
        "method": row["method"], **({row["knob_name"]: float(row["knob"])} if row["knob_name"] else {}),
        "data": described["name"], "training": _training(planned, row),
        **{key: planned[key] for key in ("network_sha256",) if key in planned},
        **{key: described[key] for key in ("network_folder",) if key in described},
    }  # fmt: skip
    built = Architecture(
        network=planned["network"], input_shape=tuple(described["input_shape"]), outputs=described["outputs"],
        task=described["task"], widths=dict(row["widths"]), preprocessing=described["preprocessing"], info=info,
    )  # fmt: skip
    return built, file


def _training(planned: dict[str, Any], row: pd.Series[Any]) -> dict[str, Any]:
    """How a trial was trained, for who wants to train its network again."""
    arm = planned["arms"][row["arm"]]
    weight_decay = float(row["knob"]) if row["knob_name"] == "weight_decay" else 0.0
    return {
        "data": planned["data"], "validation": planned["validation"], "data_seed": planned["seed"],
        "seed": int(row["seed"]), "weight_decay": weight_decay, "learning_rate": float(row["learning_rate"]),
        **{key: arm.get(key, planned[key]) for key in ("epochs", "batch_size", "optimizer")},
        **({"folds": planned["folds"], "fold": int(row["fold"])} if planned.get("folds") else {}),
        **({"samples": planned["samples"]} if planned.get("samples") else {}),
    }  # fmt: skip


class _Point(NamedTuple):
    """A row as `sizer.front` sees an epoch; `epoch` tells the rows apart."""

    epoch: int
    val_accuracy: float
    parameters: int
    flops: int


class _Read(NamedTuple):
    trials: list[dict[str, Any]]
    epochs: dict[int, list[dict[str, Any]]]


def _usable(db: str | Path | Database, plan_name: str, arm: str | None) -> pd.DataFrame:
    """The epochs of complete trials, with what their trials say."""
    told = trials(db, plan_name)
    arms = list(spec(db, plan_name)["arms"])
    if arm is not None and arm not in arms:
        raise unknown(f"arm of {plan_name}", arm, arms)
    told = told[(told["state"] == "COMPLETE") & ((told["arm"] == arm) if arm else True)]
    columns = ["trial_id", "method", "knob_name", "seed", "status", "fold", "learning_rate"]
    rows = history(db, plan_name).merge(told[columns], on="trial_id")
    rows = rows[rows["val_accuracy"].notna()].reset_index(drop=True)
    if rows.empty:
        where = f"{plan_name}/{arm}" if arm else plan_name
        raise InputError(f"no trial of {where} is complete yet: run `sizer sweep` on it")
    rows["units"] = [sum(widths.values()) for widths in rows["widths"]]
    return rows


def _first(rows: pd.DataFrame) -> pd.Series[Any]:
    order = rows.sort_values(["val_accuracy", "parameters", "trial_id", "epoch"], ascending=[False, True, True, True])
    return order.iloc[0]


def _order(epoch: dict[str, Any]) -> tuple[float, int, int]:
    """As `sizer.best_epoch` orders epochs; one whose accuracy is no number comes last."""
    accuracy = epoch["val_accuracy"]
    return (float("inf") if accuracy is None else -accuracy, epoch["parameters"], epoch["epoch"])


def _plan_and_data(db: str | Path | Database, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    opened = open_database(db)
    with plain_errors(opened), opened.engine.connect() as connection:
        row = connection.execute(tables.plans.select().where(tables.plans.c.name == name)).first()
    if row is None:
        raise unknown("evaluation", name, plan_names(opened))
    return json.loads(row.spec), json.loads(row.data)


def _read(opened: Database, plan_name: str) -> _Read:
    planned = spec(opened, plan_name)
    arms = {study_name(plan_name, arm): arm for arm in planned["arms"]}
    ours = tables.trials.join(tables.studies, tables.studies.c.study_id == tables.trials.c.study_id)
    inside = tables.studies.c.study_name.in_(arms)
    by_id = tables.trials.c.trial_id
    parameters: dict[int, dict[str, float]] = {}
    said: dict[int, dict[str, Any]] = {}
    epochs: dict[int, list[dict[str, Any]]] = {}
    with opened.engine.connect() as connection:

        def rows_of(table: sa.Table) -> Any:
            joined = ours.join(table, table.c.trial_id == by_id)
            order = list(table.primary_key)
            return connection.execute(select(table).select_from(joined).where(inside).order_by(*order)).mappings()

        found = select(tables.studies.c.study_name, tables.trials).select_from(ours).where(inside)
        rows = connection.execute(found).all()
        for drawn in rows_of(tables.trial_params):
            parameters.setdefault(drawn["trial_id"], {})[drawn["param_name"]] = drawn["param_value"]
        for told in rows_of(tables.trial_user_attributes):
            if told["key"] != "traceback":
                said.setdefault(told["trial_id"], {})[told["key"]] = json.loads(told["value_json"])
        for epoch in rows_of(tables.history):
            epochs.setdefault(epoch["trial_id"], []).append({**epoch, "widths": json.loads(epoch["widths"])})
    order = list(arms.values())
    listed = [
        _trial(arms[row.study_name], planned, row, parameters.get(row.trial_id, {}), said.get(row.trial_id, {}))
        for row in rows
    ]
    return _Read(sorted(listed, key=lambda trial: (order.index(trial["arm"]), trial["number"])), epochs)


def _trial(
    arm: str, planned: dict[str, Any], row: sa.Row[Any], parameters: dict[str, float], said: dict[str, Any]
) -> dict[str, Any]:
    """The columns that Optuna's tables give."""
    # An arm has one number of its own at most: its method's knob, or the weight decay of fixed-l2.
    named = [name for name in parameters if name not in {"depth", "learning_rate"} and not name.startswith("width_")]
    found = planned["arms"][arm]
    rate = parameters.get("learning_rate", said.get("learning_rate", found.get("learning_rate")))
    return {
        "arm": arm, "method": found["method"], "stage": found.get("stage", ""), "trial_id": row.trial_id,
        "number": row.number, "point": row.number // (planned.get("folds") or 1), "fold": said.get("fold"),
        "learning_rate": planned["learning_rate"] if rate is None else rate,
        "state": row.state, "status": said.get("status", ""), "reason": said.get("reason", ""),
        "knob_name": named[0] if named else "", "knob": parameters[named[0]] if named else float("nan"),
        "seed": said.get("seed"), "device": said.get("device", ""), "notes": said.get("notes", {}),
    }  # fmt: skip


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as `trials` and `history` give them: each column of its type, what is not there NaN or NA."""
    made = pd.DataFrame(rows, columns=list(columns))
    for column in columns:
        if column in _WHOLE:
            made[column] = made[column].astype("Int64")
        elif column in {
            "arm",
            "method",
            "stage",
            "state",
            "status",
            "reason",
            "knob_name",
            "device",
            "widths",
            "notes",
        }:
            made[column] = made[column].astype(object)
        elif column not in {"trial_id", "number"}:
            made[column] = made[column].astype(float)
    return made
