"""Networks that an evaluation offers: the best under a budget, the front, and their architectures. Writes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import sqlalchemy as sa
from sqlalchemy import select

from sizer import Architecture
from sizer import front as front_of
from sizer.errors import InputError, UnknownNameError, unknown
from studies import stored, tables, weights
from studies.artifacts import files_of
from studies.database import Database, open_database
from studies.outages import plain_errors
from studies.query import HISTORY, frame
from studies.stored import reading

_SAID = ("method", "knob_name", "seed", "status", "fold", "learning_rate")


def best(
    db: str | Path | Database,
    plan_name: str,
    arm: str | None = None,
    max_params: int | None = None,
    max_flops: int | None = None,
    max_latency: float | None = None,
) -> pd.Series[Any]:
    """The (trial, epoch) of highest validation accuracy, under a budget from the best epoch that fits it.

    Args:
        db: The database.
        plan_name: The evaluation.
        arm: Only this arm; all arms where None.
        max_params: Parameters at most.
        max_flops: FLOPs of one sample's forward pass at most.
        max_latency: Milliseconds of a pass at most, as its worker timed the last network of a trial; its epochs of no
            more parameters fit as well.

    Returns:
        The row: the columns of `query.history`, then method, knob_name, seed, status, fold, learning_rate and units.

    Raises:
        InputError: Nothing fits; the line names the nearest. Or there is no complete trial, or no such arm.
    """
    limits = [limit for limit in ((max_params, "parameters"), (max_flops, "flops")) if limit[0] is not None]
    with reading(db) as connection:
        found = stored.evaluation(connection, plan_name)
        kept = _kept(connection, found, arm)
        kept = kept if max_latency is None else _quick(connection, plan_name, kept, max_latency)
        fits = [each for each in kept if all(getattr(each, column) <= limit for limit, column in limits)]
        if fits:
            return _rows(connection, found, [min(fits, key=_Kept.order)]).iloc[0]

    def excess(each: _Kept) -> float:
        """How many times too large, in whichever of the limits is exceeded most."""
        times = [getattr(each, column) / limit for limit, column in limits if limit]
        return max(times, default=float(each.parameters))

    near = min(kept, key=lambda each: (excess(each), each.order()))
    said = [f"{limit:,} {column.replace('flops', 'FLOPs')}" for limit, column in limits]
    raise InputError(
        f"no epoch of {plan_name} fits {' and '.join(said)}: the nearest is {near.arm} trial {near.number}, epoch"
        f" {near.epoch}, with {near.parameters:,} parameters, {near.flops:,} FLOPs, validation {near.val_accuracy:.4f}"
    )


def epoch(db: str | Path | Database, plan_name: str, trial_id: int, number: int) -> pd.Series[Any]:
    """One epoch of a complete trial, as `best` gives one.

    Raises:
        UnknownNameError: The evaluation has no such complete trial, or the trial no such epoch.
    """
    with reading(db) as connection:
        own = _told(stored.read(connection, stored.evaluation(connection, plan_name), [trial_id]))
    if own.empty:
        raise UnknownNameError(f"{plan_name} has no complete trial {trial_id}: give one that its best or front names")
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
    with reading(db) as connection:
        found = stored.evaluation(connection, plan_name)
        kept = _kept(connection, found, arm)
        rows = _rows(connection, found, _front(kept))
    return rows.sort_values(["parameters", "flops"]).reset_index(drop=True)


def offers(db: str | Path | Database, plan_name: str) -> pd.DataFrame:
    """What `best` may choose, whatever the limits: every row that is no worse, larger and slower than another.

    Returns:
        Rows as `front` has them, best validation accuracy first, and their latency_ms: of the trial's last network,
        where that was timed and the row has no more parameters; else NaN.

    Raises:
        InputError: No trial is complete yet.
    """
    with reading(db) as connection:
        found = stored.evaluation(connection, plan_name)
        kept = _kept(connection, found, None)
        times = _times(connection, kept)
        chosen, quickest = set(_front(kept)), math.inf
        for each in sorted(times, key=_Kept.order):
            if times[each] < quickest:
                quickest = times[each]
                chosen.add(each)
        rows = _rows(connection, found, list(chosen))
    by_place = {(each.trial_id, each.epoch): latency for each, latency in times.items()}
    places = zip(rows["trial_id"], rows["epoch"], strict=True)
    rows["latency_ms"] = [by_place.get(place, math.nan) for place in places]
    order = ["val_accuracy", "parameters", "flops", "trial_id", "epoch"]
    return rows.sort_values(order, ascending=[False, True, True, True, True])


def architecture(db: str | Path | Database, plan_name: str, row: pd.Series[Any]) -> tuple[Architecture, Path]:
    """The architecture of a row of `best` or `front`, and the file of its weights, for `sizer.save`.

    Raises:
        InputError: Its weights were not kept, or are no longer what was written.
    """
    opened = open_database(db)
    with plain_errors(opened):
        with reading(opened) as connection:
            _, planned, described, _ = stored.evaluation(connection, plan_name)
        file = weights.file_of(opened, files_of(opened, plan_name), int(row["trial_id"]), int(row["epoch"]))
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
        "precision": arm.get("precision", planned.get("precision", "float32")),
        **({"folds": planned["folds"], "fold": int(row["fold"])} if planned.get("folds") else {}),
        **({"samples": planned["samples"]} if planned.get("samples") else {}),
    }  # fmt: skip


class _Kept(NamedTuple):
    """An epoch of a complete trial that is the best under some limits, in the order of arms and trials."""

    trial_id: int
    epoch: int
    val_accuracy: float
    parameters: int
    flops: int
    number: int
    arm: str

    def order(self) -> tuple[float, int, int, int, int]:
        """What is chosen first comes first."""
        return (-self.val_accuracy, self.parameters, self.flops, self.trial_id, self.epoch)


def _kept(connection: sa.Connection, of: stored.Evaluation, arm: str | None) -> list[_Kept]:
    """What may be chosen, whatever the limits; it is what `sizer_weights` has, so that no more is looked at."""
    if arm is not None and arm not in of.arms:
        raise unknown(f"arm of {of.name}", arm, of.arms)
    trials, kept, history = tables.trials, tables.weights, tables.history
    same = (history.c.trial_id == kept.c.trial_id) & (history.c.epoch == kept.c.epoch)
    figures = (history.c.val_accuracy, history.c.parameters, history.c.flops)
    written = select(kept.c.trial_id, kept.c.epoch, *figures).join(history, same)
    studies = [study for study, own in of.studies.items() if arm in (None, own)]
    rows = connection.execute(written.where(kept.c.study_id.in_(studies))).all()
    theirs = trials.c.trial_id.in_({row.trial_id for row in rows}) & (trials.c.state == "COMPLETE")
    complete = {row.trial_id: row for row in connection.execute(select(trials).where(theirs))}
    listed = [
        _Kept(*row, complete[row.trial_id].number, of.studies[complete[row.trial_id].study_id])
        for row in rows
        if row.trial_id in complete and row.val_accuracy is not None
    ]
    if not listed:
        where = f"{of.name}/{arm}" if arm else of.name
        raise InputError(f"no trial of {where} is complete yet: run `sizer sweep` on it")
    return sorted(listed, key=lambda each: (of.arms.index(each.arm), each.number, each.epoch))


def _front(kept: Sequence[_Kept]) -> list[_Kept]:
    """Those that no other beats; of equals the one that `best` chooses."""
    ordered = sorted(kept, key=_Kept.order)
    points = [weights.Point(at, each.val_accuracy, each.parameters, each.flops) for at, each in enumerate(ordered)]
    return [ordered[point.epoch] for point in front_of(points)]


def _times(connection: sa.Connection, kept: Sequence[_Kept]) -> dict[_Kept, float]:
    """Milliseconds of those of trials whose last network was timed, if they have no more parameters than it."""
    said = tables.trial_user_attributes.c
    keys = ("final_latency_ms", "final_parameters")
    asked = select(said.trial_id, said.key, said.value_json).where(
        said.trial_id.in_({each.trial_id for each in kept}), said.key.in_(keys)
    )
    told = connection.execute(asked).all()
    latency, size = ({row.trial_id: float(row.value_json) for row in told if row.key == key} for key in keys)
    return {
        each: latency[each.trial_id]
        for each in kept
        if each.trial_id in latency and each.parameters <= size[each.trial_id]
    }


def _quick(connection: sa.Connection, plan_name: str, kept: Sequence[_Kept], limit: float) -> list[_Kept]:
    """Those that are quick enough."""
    times = _times(connection, kept)
    if not times:
        raise InputError(
            f"no network of {plan_name} was timed: sweep with --target-latency, or size with --max-latency"
        )
    quick = [each for each, latency in times.items() if latency <= limit]
    if not quick:
        near = min(times, key=lambda each: times[each])
        raise InputError(
            f"no network of {plan_name} passes in {limit:.3g} ms: the nearest is {near.arm} trial {near.number}, with"
            f" {times[near]:.3g} ms, {near.parameters:,} parameters"
        )
    return quick


def _rows(connection: sa.Connection, of: stored.Evaluation, chosen: Sequence[_Kept]) -> pd.DataFrame:
    """These epochs, as `best` and `front` give them."""
    places = {(each.trial_id, each.epoch) for each in chosen}
    read = stored.read(connection, of, sorted({trial for trial, _ in places}), kept=True)
    for trial, epochs in read.epochs.items():
        epochs[:] = [epoch for epoch in epochs if (trial, epoch["epoch"]) in places]
    return _told(read)


def _told(read: stored.Read) -> pd.DataFrame:
    """The epochs of complete trials, with what their trials say."""
    rows = [
        {**{name: trial[name] for name in ("arm", "number", "knob", *_SAID)}, **epoch}
        for trial in read.trials
        if trial["state"] == "COMPLETE"
        for epoch in read.epochs.get(trial["trial_id"], [])
        if epoch["val_accuracy"] is not None
    ]
    return frame(rows, (*HISTORY, *_SAID, "units"), units="int64")
