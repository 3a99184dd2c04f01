"""Schema 2: a driver can be asked to stop, a plan says where its files are, weights that were lost are remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From schema 1."""
    op.add_column("sizer_leases", sa.Column("stop", sa.Text))
    op.add_column("sizer_plans", sa.Column("files", sa.Text))
    with op.batch_alter_table("sizer_weights") as weights:
        weights.alter_column("artifact_id", existing_type=sa.String(64), nullable=True)
        weights.alter_column("sha256", existing_type=sa.String(64), nullable=True)
    op.create_index("sizer_trials_by_state", "trials", ["study_id", "state"])
    op.execute("delete from sizer_schema")
    op.execute("insert into sizer_schema (version) values (2)")
