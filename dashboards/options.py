"""Options that several commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from studies import credentials


def _no_password(context: typer.Context, option: typer.CallbackParam, value: str) -> str:
    source = context.get_parameter_source(str(option.name))
    if source is not None and source.name == "COMMANDLINE":
        credentials.refuse_on_command_line(value)
    return value


DB = Annotated[
    str,
    typer.Option(
        "--db", envvar="SIZER_DB", metavar="FILE|URL", help="SQLite file or SQLAlchemy URL.", callback=_no_password
    ),
]
