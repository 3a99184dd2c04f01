"""The steps from one version of our tables to the next, which Alembic runs on every new or older database."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


def upgrade(connection: sa.Connection) -> None:
    """Brings our tables to the newest version, from any older one or none, in the connection's own transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    there = set(sa.inspect(connection).get_table_names())
    if "sizer_schema" in there and "sizer_alembic_version" not in there:  # made before there were steps
        command.stamp(config, "0001")
    command.upgrade(config, "head")
