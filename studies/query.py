"""Reads an evaluation out of its database: its plan, trials and history. Writes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import select

from sizer.errors import unknown
from studies import stored, tables
from studies.database import Database
from studies.lease import is_held
from studies.stored import reading

TRIALS = (
    "arm", "method", "stage", "trial_id", "number", "point", "fold", "state", "status", "reason", "knob_name", "knob",
    "learning_rate", "seed", "tunes", "epoch",
    "val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops", "units", "training_flops",
    "seconds", "epochs", "peak_memory", "latency_ms", "widths", "device", "notes",
)  # fmt: skip
HISTORY = (
    "arm", "trial_id", "number", "knob", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    "test_loss", "test_accuracy", "parameters", "flops", "training_flops", "seconds", "peak_memory", "widths",
)  # fmt: skip
NOBODY = "nobody runs it"
_WHOLE = (
    "point", "fold", "epoch", "parameters", "flops", "units", "training_flops", "epochs", "peak_memory", "seed",
    "tunes",
)  # fmt: skip
_WORDS = ("arm", "method", "stage", "state", "status", "reason", "knob_name", "device", "widths", "notes")
_AT_BEST = ("epoch", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "parameters", "flops", "units", "widths")


def plan_names(db: str | Path | Database) -> list[str]:
    """The evaluations in a database, in the order they began."""
    with reading(db) as connection:
        return stored.plan_names(connection)


def spec(db: str | Path | Database, name: str) -> dict[str, Any]:
    """The plan of an evaluation, as `Plan.spec()` gave it.

    Raises:
        InputError: The database has no such evaluation; the line lists those it has.
    """
    with reading(db) as connection:
        return stored.evaluation(connection, name).spec


def data(db: str | Path | Database, name: str) -> dict[str, Any]:
    """What the data of an evaluation was, as `studies.sweep.describe()` said: task, shapes, rows, preprocessing.

    Raises:
        InputError: The database has no such evaluation.
    """
    with reading(db) as connection:
        return stored.evaluation(connection, name).data


def driver(db: str | Path | Database, name: str) -> str:
    """Who runs an evaluation now, in words: "run by process 4711 on HOST since ..." or "nobody runs it"."""
    with reading(db) as connection:
        held = connection.execute(tables.leases.select().where(tables.leases.c.plan == name)).first()
    if held is None or not is_held(held):
        return NOBODY
    return f"run by process {held.pid} on {held.host} since {held.since}"


def trials(db: str | Path | Database, plan_name: str, arm: str | None = None) -> pd.DataFrame:
    """One row a trial of every arm, in the order of arms and numbers; its figures are those of its best epoch.

    Columns: arm, method, stage (what a stage looks for; "" of an arm), trial_id, number; point and fold (of
    cross-validation, else the number and none); state (Optuna's: COMPLETE, PRUNED, FAIL, RUNNING, WAITING), status
    (complete, collapsed, pruned, diverged, error, or "" while it runs), reason; knob_name and knob (of `fixed` "" and
    NaN, of `fixed-l2` its weight decay), learning_rate, seed, tunes (the step of a path that a trial tunes); epoch,
    val_accuracy, test_accuracy, val_loss, test_loss, parameters, flops (forward, one sample), units and widths (layer
    -> width) at the best epoch; training_flops, seconds, epochs and peak_memory (bytes) of the whole trial; latency_ms
    of the last network, where a target wants it (else NaN); device; notes (what the method noted, such as its rounds).
    A trial without an epoch has no figures.

    Args:
        db: The database.
        plan_name: The evaluation.
        arm: Only this one; all unless given.

    Raises:
        InputError: No such database or evaluation, or no such arm.
    """
    with reading(db) as connection:
        found = stored.evaluation(connection, plan_name)
        if arm is not None:
            if arm not in found.arms:
                raise unknown(f"arm of {plan_name}", arm, found.arms)
            found = found._replace(studies={study: own for study, own in found.studies.items() if own == arm})
        return _briefly(stored.brief(connection, found))


def trial(db: str | Path | Database, trial_id: int) -> tuple[str, pd.Series[Any]]:
    """The evaluation that a trial belongs to, and its row as `trials` has it.

    Raises:
        UnknownNameError: There is no such trial, or it is of a study that is not ours.
    """
    with reading(db) as connection:
        of = stored.evaluation_of(connection, trial_id)
        return of.name, _briefly(stored.brief(connection, of, [trial_id])).iloc[0]


def said(db: str | Path | Database, trial_id: int) -> dict[str, Any]:
    """All that a trial says of itself, such as its traceback: Optuna's user attributes."""
    told = tables.trial_user_attributes.c
    with reading(db) as connection:
        rows = connection.execute(select(told.key, told.value_json).where(told.trial_id == trial_id))
        return {key: json.loads(text) for key, text in rows}


def origins(db: str | Path | Database, plan_name: str) -> pd.DataFrame:
    """Where an evaluation's trials were trained, a row a kind: device, commit, environment (a dict), trials.

    Of one that was pruned or killed neither device nor environment is known: "" and {}.
    """
    told, keys = tables.trial_user_attributes.c, {"device": '""', "commit": '""', "environment": "{}"}
    with reading(db) as connection:
        own = tables.trials.c.study_id.in_(stored.evaluation(connection, plan_name).studies)
        asked = select(told.trial_id, told.key, told.value_json).join(
            tables.trials, tables.trials.c.trial_id == told.trial_id
        )
        said: dict[int, dict[str, str]] = {}
        for trial, key, text in connection.execute(asked.where(own, told.key.in_(keys)).order_by(told.trial_id)):
            said.setdefault(trial, {})[key] = text
    counts = Counter(tuple(each.get(key, nothing) for key, nothing in keys.items()) for each in said.values())
    rows = [{**{key: json.loads(text) for key, text in zip(keys, each, strict=True)}, "trials": count}
            for each, count in counts.items()]  # fmt: skip
    return pd.DataFrame(rows, columns=[*keys, "trials"])


def _briefly(read: stored.Brief) -> pd.DataFrame:
    rows = []
    for trial in read.trials:
        best, last = (found.get(trial["trial_id"], {}) for found in (read.best, read.last))
        row = {**trial, **{name: best.get(name) for name in _AT_BEST}, "widths": best.get("widths", {})}
        row |= {total: last.get(total) for total in ("training_flops", "seconds", "peak_memory")}
        rows.append({**row, "epochs": last.get("epoch", 0)})
    return frame(rows, TRIALS)


def history(db: str | Path | Database, plan_name: str, trials: Sequence[int] | None = None) -> pd.DataFrame:
    """One row an epoch of every trial, in order; the columns mean what they mean in `sizer_history`.

    Args:
        db: The database.
        plan_name: The evaluation.
        trials: Only of these, by their ids.

    Raises:
        InputError: No such database or evaluation.
    """
    with reading(db) as connection:
        chosen = None if trials is None else [int(trial) for trial in trials]
        read = stored.read(connection, stored.evaluation(connection, plan_name), chosen)
    rows = [
        {**epoch, **{name: trial[name] for name in ("arm", "number", "knob")}}
        for trial in read.trials
        for epoch in read.epochs.get(trial["trial_id"], [])
    ]
    return frame(rows, HISTORY)


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], **types: str) -> pd.DataFrame:
    """Rows as `trials` and `history` give them: each column of its type, what is not there NaN or NA.

    Args:
        rows: Column -> value.
        columns: Their order.
        types: Of columns that are of another type here.
    """
    kinds: dict[str, Any] = {"trial_id": "int64", "number": "int64", **dict.fromkeys(_WHOLE, "Int64")}
    kinds |= {**dict.fromkeys(_WORDS, object), **types}
    # A column at a time: that is many times quicker than to change the types of a frame.
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=kinds.get(name, float)) for name in columns}
    )
