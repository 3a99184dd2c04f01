"""What the driver writes of a trial: its epochs as they come, its end, and the architecture of its best epoch.

Nobody else writes. Each write shows the lease in its own transaction; rows are replaced, never doubled, because a
worker or a driver that was killed reports some epochs again. What Optuna Dashboard shows of a trial is written into
Optuna's own tables in the same transactions: Optuna would take one for each value.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialUserAttributeModel

from sizer import Epoch
from studies import stored
from studies.database import Database
from studies.lease import Lease
from studies.tables import ENDED, architectures, history, plans, trials, weights

EPOCHS = "epochs"
"""What a study says of itself: how many epochs the trials that have ended have."""
_drawn, _said = TrialIntermediateValueModel, TrialUserAttributeModel


class Records:
    """The writes of the one driver that holds the lease of an evaluation."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self.database = database
        self._lease = lease

    def plan(self, name: str, spec: Mapping[str, Any], data: Mapping[str, Any], files: str | None) -> None:
        """Writes the plan, what its data was, and where its files lie from now on."""
        row = {"spec": json.dumps(spec), "data": json.dumps(data)}

        def write(connection: sa.Connection) -> None:
            if connection.execute(plans.update().where(plans.c.name == name).values(row)).rowcount == 0:
                created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                connection.execute(plans.insert().values(name=name, created=created, files=files, **row))

        self._write(write)

    def epoch(self, trial_id: int, epoch: Epoch) -> None:
        """Writes one epoch of a trial, over the one of that number if it is there; committed on return."""
        row = {key: _number(value) for key, value in epoch.to_dict().items() if key in history.c}
        row |= {"widths": json.dumps(epoch.widths), "units": sum(epoch.widths.values())}

        def write(connection: sa.Connection) -> None:
            place = (history.c.trial_id == trial_id) & (history.c.epoch == epoch.epoch)
            if connection.execute(history.update().where(place).values(row)).rowcount == 0:
                connection.execute(history.insert().values(trial_id=trial_id, **row))
            # Optuna Dashboard draws these, live.
            value, kind = _drawn.intermediate_value_to_stored_repr(epoch.val_accuracy)
            shown = {"intermediate_value": value, "intermediate_value_type": kind}
            connection.execute(sa.delete(_drawn).where(_drawn.trial_id == trial_id, _drawn.step == epoch.epoch))
            connection.execute(sa.insert(_drawn).values(trial_id=trial_id, step=epoch.epoch, **shown))

        self._write(write)

    def architecture(self, trial_id: int, widths: Mapping[str, int]) -> None:
        """Writes the architecture of a trial's best epoch, a row a layer."""
        rows = [
            {"trial_id": trial_id, "position": position, "layer": layer, "width": width}
            for position, (layer, width) in enumerate(widths.items())
        ]

        def write(connection: sa.Connection) -> None:
            connection.execute(architectures.delete().where(architectures.c.trial_id == trial_id))
            if rows:
                connection.execute(architectures.insert(), rows)

        self._write(write)

    def attributes(self, trial_id: int, values: Mapping[str, Any]) -> None:
        """Writes what Optuna Dashboard shows beside a trial."""
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()]

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.delete(_said).where(_said.trial_id == trial_id, _said.key.in_(values)))
            connection.execute(sa.insert(_said), rows)

        self._write(write)

    def count(self, study_id: int) -> tuple[int, int]:
        """How many trials a study has, and how many epochs those of them that have ended."""
        own, ended = trials.c.study_id == study_id, trials.c.state.in_(ENDED)
        written = sa.select(sa.func.count()).join_from(trials, history, history.c.trial_id == trials.c.trial_id)

        def read() -> tuple[int, int]:
            with self.database.engine.connect() as connection:
                begun = connection.scalar(sa.select(sa.func.count()).select_from(trials).where(own))
                return begun or 0, connection.scalar(written.where(own, ended)) or 0

        return self.database.again(read)

    def spent(self, study_id: int) -> float:
        """FLOPs of training that the trials of a study that have ended have spent."""

        def read() -> float:
            with self.database.engine.connect() as connection:
                return stored.spent(connection, study_id)

        return self.database.again(read)

    def forget(self, trial_id: int) -> None:
        """Drops what stands under the id of a trial that is only beginning.

        SQLite gives the ids of deleted rows out again, and whoever deleted them may not have had foreign keys on.
        """

        def write(connection: sa.Connection) -> None:
            for table in (history, architectures, weights):
                connection.execute(table.delete().where(table.c.trial_id == trial_id))

        self._write(write)

    def epochs(self, trial_id: int) -> list[Epoch]:
        """The epochs of a trial that are written, in order."""
        wanted = history.select().where(history.c.trial_id == trial_id).order_by(history.c.epoch)

        def read() -> list[Epoch]:
            with self.database.engine.connect() as connection:
                return [epoch_of(row) for row in connection.execute(wanted).mappings()]

        return self.database.again(read)

    def _write(self, action: Callable[[sa.Connection], None]) -> None:
        """Writes in one transaction that shows the lease, again where the answer was lost."""

        def once() -> None:
            with self.database.engine.begin() as connection:
                self._lease.show(connection)
                action(connection)

        self.database.again(once)


def _number(value: Any) -> Any:
    """NULL for what is no number, as SQLite has it; PostgreSQL would order NaN above all numbers."""
    return None if isinstance(value, float) and math.isnan(value) else value


def epoch_of(row: sa.RowMapping) -> Epoch:
    """A row of `sizer_history` as the Epoch that it was; a loss that was NaN is NaN again."""
    values = {key: row[key] for key in row if key not in {"trial_id", "units"}}
    numbers = {key: float("nan") if value is None else value for key, value in values.items()}
    return Epoch.from_dict({**numbers, "widths": json.loads(row["widths"])})
