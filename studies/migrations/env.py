"""What Alembic runs: the steps, on the connection and in the transaction that `studies.database` gives it."""

from alembic import context

# Optuna keeps a table `alembic_version` of its own in the same database.
context.configure(
    connection=context.config.attributes["connection"], version_table="sizer_alembic_version", render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
