"""`sizer db`: what an operator does with a database."""

from __future__ import annotations

import typer

from dashboards.options import DB

app = typer.Typer(name="db", help="Looks after a database: its version, and whether it is whole.", no_args_is_help=True)


@app.command()
def upgrade(db: DB = "sizer.db") -> None:
    """Brings a database of an older sizer or Optuna to this version, and makes the tables of an empty one on a server.

    All rows stay. Back it up first, and end the sweeps that write it.
    """
    from sizer.errors import InputError
    from studies.database import named, version_of
    from studies.outages import plain_errors
    from studies.tables import SCHEMA

    database = named(db)
    before = version_of(database)
    if before is None and database.is_file:
        raise InputError(f"no sweep in {database.url}: there is nothing to upgrade")
    with plain_errors(database):
        if before is None:
            database.create()
        else:
            database.upgrade()
    after = "as it was" if before == SCHEMA else f"{SCHEMA}, was {before or 'empty'}"
    typer.echo(f"{database.url}: schema {after}")


@app.command()
def check(db: DB = "sizer.db") -> None:
    """Looks a database over; exit code 1 where something is not as it should be.

    Its version, trials that nobody runs, rows without a trial, and the kept weights against their SHA-256.
    """
    from studies.checkup import problems
    from studies.database import named
    from studies.tables import SCHEMA

    database = named(db)
    found = list(problems(database))
    for line in found:
        typer.echo(line)
    if found:
        raise typer.Exit(1)
    typer.echo(f"{database.url}: schema {SCHEMA}, all is well")
