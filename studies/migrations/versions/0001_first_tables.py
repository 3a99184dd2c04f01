"""The tables of schema 1."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them; Optuna's stand already."""
    op.create_table("sizer_schema", sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
    op.create_table(
        "sizer_plans",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
    )
    op.create_table(
        "sizer_history",
        _trial_id(),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        *(
            sa.Column(f"{part}_{what}", sa.Float(53))
            for part in ("train", "val", "test")
            for what in ("loss", "accuracy")
        ),
        sa.Column("parameters", sa.BigInteger),
        sa.Column("flops", sa.BigInteger),
        sa.Column("training_flops", sa.BigInteger),
        sa.Column("seconds", sa.Float(53)),
        sa.Column("peak_memory", sa.BigInteger),
        sa.Column("units", sa.BigInteger),
        sa.Column("widths", sa.Text),
    )
    op.create_table(
        "sizer_architectures",
        _trial_id(),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("layer", sa.String(255), nullable=False),
        sa.Column("width", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sizer_weights",
        _trial_id(),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("artifact_id", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    op.create_table(
        "sizer_leases",
        sa.Column("plan", sa.String(255), primary_key=True),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("machine", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started", sa.String(64), nullable=False),
        sa.Column("since", sa.String(32), nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
    )
    op.execute("insert into sizer_schema (version) values (1)")


def _trial_id() -> "sa.Column[int]":
    return sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.trial_id", ondelete="CASCADE"), primary_key=True)
