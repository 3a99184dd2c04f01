"""Schema 2: a driver can be asked to stop, a plan says where its files are, and what is asked for often has an index.

`sizer_weights` now has a row for every epoch that may be the best of its arm under some limits, with a file or without.
"""

from itertools import groupby

import sqlalchemy as sa
from alembic import op

from sizer.history import choices
from studies.weights import Point

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From schema 1."""
    op.add_column("sizer_leases", sa.Column("stop", sa.Text))
    op.add_column("sizer_plans", sa.Column("files", sa.Text))
    op.add_column("sizer_weights", sa.Column("study_id", sa.Integer))
    op.execute("update sizer_weights set study_id = (select study_id from trials"
               " where trials.trial_id = sizer_weights.trial_id)")  # fmt: skip
    op.execute("delete from sizer_weights where study_id is null")  # of trials deleted without foreign keys
    with op.batch_alter_table("sizer_weights") as weights:
        weights.alter_column("study_id", existing_type=sa.Integer, nullable=False)
        weights.alter_column("artifact_id", existing_type=sa.String(64), nullable=True)
        weights.alter_column("sha256", existing_type=sa.String(64), nullable=True)
    _note_choices(op.get_bind())
    op.create_index("sizer_weights_by_study", "sizer_weights", ["study_id"])
    op.create_index("sizer_trials_by_state", "trials", ["study_id", "state"])
    collapsed = sa.text("key = 'status' and value_json = '\"collapsed\"'")
    op.create_index("sizer_trials_collapsed", "trial_user_attributes", ["trial_id"],
                    sqlite_where=collapsed, postgresql_where=collapsed)  # fmt: skip
    op.execute("delete from sizer_schema")
    op.execute("insert into sizer_schema (version) values (2)")


def _note_choices(connection: sa.Connection) -> None:
    """Adds rows without a file for what was kept under one limit at a time only."""
    there = {tuple(row) for row in connection.execute(sa.text("select trial_id, epoch from sizer_weights"))}
    epochs = connection.execute(sa.text(
        "select study_id, trial_id, epoch, val_accuracy, parameters, flops"
        " from sizer_history join trials using (trial_id)"
        " where state = 'COMPLETE' and val_accuracy is not null order by study_id, trial_id, epoch"
    )).all()  # fmt: skip
    for study_id, own in groupby(epochs, key=lambda row: row.study_id):
        rows = list(own)
        points = [Point(at, row.val_accuracy, row.parameters, row.flops) for at, row in enumerate(rows)]
        chosen = [rows[point.epoch] for point in choices(points)]
        values = [
            {"trial": row.trial_id, "epoch": row.epoch, "study": study_id}
            for row in chosen
            if (row.trial_id, row.epoch) not in there
        ]
        if values:
            insert = "insert into sizer_weights (trial_id, epoch, study_id) values (:trial, :epoch, :study)"
            connection.execute(sa.text(insert), values)
