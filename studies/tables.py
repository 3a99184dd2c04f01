"""The tables of an evaluation, beside Optuna's own in one database. `studies/migrations` makes and changes them.

Optuna keeps `studies` (named `PLAN/ARM`), `trials`, `trial_params` (the knob, or the widths a baseline drew) and
`trial_user_attributes`. Beside them stand the tables below; deleting a trial deletes its rows here.

    select architecture.layer, architecture.width from sizer_architectures architecture
    join trials using (trial_id) join studies using (study_id) where study_name = 'demo/shrinknets' and number = 3
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA = 2
"""The version of our tables that this code reads and writes; `studies/migrations` has a step to each."""

ENDED = ("COMPLETE", "PRUNED", "FAIL")
"""The states of trials that have ended."""

metadata = sa.MetaData()
# Optuna's own tables as far as we read them; it creates them, never we.
studies = sa.Table("studies", metadata, sa.Column("study_id", sa.Integer, primary_key=True),
                   sa.Column("study_name", sa.String))  # fmt: skip
trials = sa.Table("trials", metadata, sa.Column("trial_id", sa.Integer, primary_key=True),
                  sa.Column("number", sa.Integer), sa.Column("study_id", sa.Integer),
                  # On PostgreSQL a type of its own, which no string is compared with.
                  sa.Column("state", sa.Enum("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING", name="trialstate")),
                  sa.Column("datetime_complete", sa.DateTime),
                  sa.Index("sizer_trials_by_state", "study_id", "state"))  # fmt: skip
trial_params = sa.Table("trial_params", metadata, sa.Column("param_id", sa.Integer, primary_key=True),
                        sa.Column("trial_id", sa.Integer), sa.Column("param_name", sa.String),
                        sa.Column("param_value", sa.Float))  # fmt: skip
trial_user_attributes = sa.Table("trial_user_attributes", metadata,
                                 sa.Column("trial_user_attribute_id", sa.Integer, primary_key=True),
                                 sa.Column("trial_id", sa.Integer), sa.Column("key", sa.String),
                                 sa.Column("value_json", sa.Text))  # fmt: skip
study_user_attributes = sa.Table("study_user_attributes", metadata,
                                 sa.Column("study_user_attribute_id", sa.Integer, primary_key=True),
                                 sa.Column("study_id", sa.Integer), sa.Column("key", sa.String),
                                 sa.Column("value_json", sa.Text))  # fmt: skip
collapsed = sa.text("key = 'status' and value_json = '\"collapsed\"'")
"""What `trial_user_attributes` say of a trial in which a layer emptied; in these words, so that the index is used."""
sa.Index("sizer_trials_collapsed", trial_user_attributes.c.trial_id, sqlite_where=collapsed, postgresql_where=collapsed)
study_system_attributes = sa.Table("study_system_attributes", metadata,
                                   sa.Column("study_system_attribute_id", sa.Integer, primary_key=True),
                                   sa.Column("study_id", sa.Integer), sa.Column("key", sa.String),
                                   sa.Column("value_json", sa.Text))  # fmt: skip


def _trial_id() -> sa.Column[int]:
    return sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.trial_id", ondelete="CASCADE"), primary_key=True)


schema = sa.Table("sizer_schema", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))

plans = sa.Table(
    "sizer_plans", metadata,
    sa.Column("name", sa.String(255), primary_key=True, doc="the evaluation; its studies are named NAME/ARM"),
    sa.Column("spec", sa.Text, nullable=False, doc="the plan as JSON"),
    sa.Column("data", sa.Text, nullable=False, doc="what the data was, as JSON: task, shapes, preprocessing"),
    sa.Column("created", sa.String(32), nullable=False, doc="when it began, UTC, ISO 8601"),
    sa.Column("files", sa.Text, doc="where its files are, a path or a URI; NULL: beside the database"),
)  # fmt: skip

history = sa.Table(
    "sizer_history", metadata, _trial_id(),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False, doc="counts from 1"),
    *(sa.Column(f"{part}_{what}", sa.Float(53)) for part in ("train", "val", "test") for what in ("loss", "accuracy")),
    sa.Column("parameters", sa.BigInteger, doc="weights and biases of the network as it then was"),
    sa.Column("flops", sa.BigInteger, doc="of one sample's forward pass"),
    sa.Column("training_flops", sa.BigInteger, doc="spent on training since the trial began"),
    sa.Column("seconds", sa.Float(53), doc="since the trial began"),
    sa.Column("peak_memory", sa.BigInteger, doc="bytes"),
    sa.Column("units", sa.BigInteger, doc="the sum of the widths"),
    sa.Column("widths", sa.Text, doc="layer -> width as JSON, in the order the layers run"),
)  # fmt: skip

architectures = sa.Table(
    "sizer_architectures", metadata, _trial_id(),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False, doc="0 for the layer that runs first"),
    sa.Column("layer", sa.String(255), nullable=False, doc="the submodule's path"),
    sa.Column("width", sa.BigInteger, nullable=False, doc="its units at the trial's best epoch"),
)  # fmt: skip

weights = sa.Table(
    "sizer_weights", metadata, _trial_id(),
    sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, doc="the trial's"),
    sa.Column("artifact_id", sa.String(64), doc="the file's name in X.files/artifacts; NULL: it was not there"),
    sa.Column("sha256", sa.String(64)),
    sa.Index("sizer_weights_by_study", "study_id"),
)  # fmt: skip

leases = sa.Table(
    "sizer_leases", metadata,
    sa.Column("plan", sa.String(255), primary_key=True),
    sa.Column("token", sa.String(64), nullable=False, doc="what every write of the holder must show"),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False, doc="tells hosts of one name, and reboots, apart"),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started", sa.String(64), nullable=False, doc="when the process began: a pid is used again"),
    sa.Column("since", sa.String(32), nullable=False, doc="UTC, ISO 8601"),
    sa.Column("expires", sa.Float(53), nullable=False, doc="seconds since 1970"),
    sa.Column("stop", sa.Text, doc="why the holder is asked to end; NULL: it is not"),
)  # fmt: skip

OURS = (schema, plans, history, architectures, weights, leases)
