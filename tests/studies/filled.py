"""Databases of many trials: the rows that a driver would have written of them, in bulk."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from optuna.distributions import distribution_to_json

from sizer import Epoch, best_epoch
from studies import search, weights
from studies.database import Database
from studies.driver import Driver
from studies.lease import Lease
from studies.plan import Plan
from studies.records import EPOCHS
from studies.tables import history
from tests.studies.benches import DATA
from tests.studies.sweeps import Seen

_FIGURES = [column.name for column in history.c if column.name not in {"trial_id", "units", "widths"}]
_ENDED = {"COMPLETE", "PRUNED", "FAIL"}
_AT_ONCE = 10_000
_DATE = "2026-01-01 00:00:00"


@dataclass(frozen=True)
class Trial:
    """A trial as it stands: of an arm, with some epochs, in a state of Optuna's, and how we say that it ended."""

    arm: str
    epochs: Sequence[Epoch]
    state: str = "COMPLETE"
    status: str = "complete"
    reason: str = ""


@dataclass(frozen=True)
class _Numbered:
    trial: Trial
    trial_id: int
    study_id: int
    number: int

    @cached_property
    def best(self) -> Epoch | None:
        return best_epoch(self.trial.epochs) if self.trial.epochs else None


def fill(database: Database, plan: Plan, trials: Iterable[Trial]) -> None:
    """Adds trials to an evaluation, in their order. Of those that are kept no files are there."""
    with Lease(database, plan.name) as lease, database.guarded(lease.check):
        driver = Driver(plan, database, lease, Seen())
        driver.begin(DATA)
    kept: dict[int, list[weights.Candidate]] = defaultdict(list)
    for study in driver._studies.values():
        kept[study._study_id] = weights._held(database, study)
    epochs: Counter[int] = Counter()
    with database.engine.begin() as connection:
        if not database.is_file:  # that what is referred to is there need not be looked up for each row
            connection.exec_driver_sql("set local session_replication_role = replica")
        numbered = _numbered(connection, plan, trials)
        while some := list(itertools.islice(numbered, _AT_ONCE)):
            for table, columns, rows in _rows(plan, some):
                _write(connection, table, columns.split(), rows)
            for row in some:
                epochs[row.study_id] += len(row.trial.epochs) * (row.trial.state in _ENDED)
                if row.trial.state == "COMPLETE" and (best := row.best):
                    kept[row.study_id] += [weights._candidate(row.trial_id, each, best) for each in row.trial.epochs]
            kept = defaultdict(list, {study: list(weights.chosen(found)) for study, found in kept.items()})
        for study, found in kept.items():
            rows = sorted((entry.trial_id, entry.epoch, study) for entry in found)
            connection.execute(sa.delete(weights.weights).where(weights.weights.c.study_id == study))
            _write(connection, "sizer_weights", ["trial_id", "epoch", "study_id"], rows)
        told = "update study_user_attributes set value_json = :told where study_id = :study and key = :key"
        for study, count in epochs.items():
            connection.execute(sa.text(told), {"told": str(count), "study": study, "key": EPOCHS})
        if not database.is_file:
            connection.exec_driver_sql("select setval('trials_trial_id_seq', (select max(trial_id) from trials))")
    if not database.is_file:  # as the server does by itself within a minute
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze")


def _numbered(connection: sa.Connection, plan: Plan, trials: Iterable[Trial]) -> Iterator[_Numbered]:
    ids = itertools.count(1 + (connection.exec_driver_sql("select max(trial_id) from trials").scalar() or 0))
    counted = "select study_id, (select count(*) from trials where trials.study_id = studies.study_id) from studies"
    before = dict(connection.exec_driver_sql(counted).all())
    named = dict(connection.exec_driver_sql("select study_name, study_id from studies").all())
    studies = {arm: named[plan.study_name(arm)] for arm in plan.every}
    numbers = {arm: itertools.count(before[study]) for arm, study in studies.items()}
    for trial in trials:
        yield _Numbered(trial, next(ids), studies[trial.arm], next(numbers[trial.arm]))


def _rows(plan: Plan, some: Sequence[_Numbered]) -> Iterator[tuple[str, str, Iterable[Sequence[Any]]]]:
    """Table, columns, and their rows; what refers to others comes after them."""
    figures = attrgetter(*_FIGURES)
    ended = [row for row in some if row.trial.state in _ENDED and row.best is not None]
    complete = [row for row in ended if row.trial.state == "COMPLETE"]
    epochs = [(row.trial_id, epoch, json.dumps(epoch.widths)) for row in some for epoch in row.trial.epochs]
    yield "trials", "trial_id number study_id state datetime_start datetime_complete", (
        (row.trial_id, row.number, row.study_id, row.trial.state, _DATE, _DATE if row.trial.state in _ENDED else None)
        for row in some
    )  # fmt: skip
    yield "trial_params", "trial_id param_name param_value distribution_json", _drawn(plan, some)
    yield "trial_values", "trial_id objective value value_type", (
        (row.trial_id, 0, row.best.val_accuracy, "FINITE") for row in complete
    )  # fmt: skip
    yield "trial_user_attributes", "trial_id key value_json", (
        (row.trial_id, key, text) for row in some for key, text in _said(plan, row)
    )  # fmt: skip
    yield "trial_intermediate_values", "trial_id step intermediate_value intermediate_value_type", (
        (trial, epoch.epoch, epoch.val_accuracy, "FINITE") for trial, epoch, _ in epochs
    )  # fmt: skip
    yield "sizer_history", f"trial_id units widths {' '.join(_FIGURES)}", (
        (trial, sum(epoch.widths.values()), widths, *figures(epoch)) for trial, epoch, widths in epochs
    )  # fmt: skip
    yield "sizer_architectures", "trial_id position layer width", (
        (row.trial_id, at, *layer) for row in ended for at, layer in enumerate(row.best.widths.items())
    )  # fmt: skip


def _drawn(plan: Plan, some: Sequence[_Numbered]) -> Iterator[Sequence[Any]]:
    spaces = {
        arm: {name: (bounds, distribution_to_json(bounds)) for name, bounds in search.space(plan, found).items()}
        for arm, found in plan.every.items()
    }
    for row in some:
        for name, (bounds, text) in spaces[row.trial.arm].items():
            yield row.trial_id, name, bounds.low + (bounds.high - bounds.low) * (row.number % 7) // 7, text


def _said(plan: Plan, row: _Numbered) -> Iterator[tuple[str, str]]:
    """Keys and values, these as JSON."""
    yield "seed", str(plan.seed + row.number)
    yield "learning_rate", str(plan.learning_rate)
    if row.trial.state not in _ENDED:
        return
    if best := row.best:
        for name in ("test_accuracy", "parameters", "flops"):
            yield name, str(getattr(best, name))
        yield "best_epoch", str(best.epoch)
        yield "widths", json.dumps(best.widths)
    yield "status", f'"{row.trial.status}"'
    if row.trial.reason:
        yield "reason", json.dumps(row.trial.reason)
    yield "device", '"cpu"'


def _write(connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    listed, driver = ", ".join(columns), connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        driver.executemany(f"insert into {table} ({listed}) values ({', '.join('?' * len(columns))})", rows)
        return
    with driver.copy(f"copy {table} ({listed}) from stdin") as copy:  # type: ignore[attr-defined]  # psycopg's own
        for row in rows:
            copy.write_row(row)
