"""Options that several commands have in common, and whom they mean to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sizer.errors import InputError
from studies import credentials

if TYPE_CHECKING:
    from dashboards.client import Remote
    from dashboards.source import Source


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
SERVER = Annotated[
    str | None,
    typer.Option(
        "--server", envvar="SIZER_SERVER", metavar="URL", help="Ask a `sizer dashboard` there; SIZER_TOKEN lets in."
    ),
]
TRIAL_TIMEOUT = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="A trial that trains for longer, or hangs, fails.")
]
TARGET_PARAMS = Annotated[
    str | None,
    typer.Option(metavar="N,...", help="Sizing arms look for networks of just under so many parameters: 20k,50k."),
]
TARGET_FLOPS = Annotated[
    str | None, typer.Option(metavar="N,...", help="The same for FLOPs of a sample's forward pass.")
]
TARGET_LATENCY = Annotated[
    str | None, typer.Option(metavar="TIME,...", help="The same for a pass of one sample, on its worker: 0.2ms,150us.")
]
PACK_HELP = "Trials that a worker trains at once, as one program; auto times some steps and chooses."
STUDIED = Annotated[
    str | None,
    typer.Argument(metavar="[PLAN]", help="A plan's name in the database; may be left out if it is the only one."),
]
PLAN = Annotated[str, typer.Argument(metavar="PLAN", help="A preset, PRESET/CELL, or a .toml file.")]
TRIALS = Annotated[int | None, typer.Option(help="Trials of each arm, instead of the plan's.")]
EPOCHS = Annotated[int | None, typer.Option(help="Epochs of each trial, instead of the plan's.")]
SEED = Annotated[int | None, typer.Option(help="Seed of data split, draws and training.")]
SCALE = Annotated[str, typer.Option(help="full, or a smaller scale that the plan has, such as small.")]
NAME = Annotated[str | None, typer.Option(help="Another name in the database.")]
CONCURRENCY = Annotated[int | None, typer.Option(help="Workers at once; as many as fit unless given.")]


def source_of(context: typer.Context, db: str, server: str | None) -> Source:
    """The database or the server that is meant: what was typed wins over what the environment says."""
    sources = {name: context.get_parameter_source(name) for name in ("db", "server")}
    typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if len(typed) == 2:
        raise InputError(f"--db {db} and --server {server}: give one of them")
    if server is None or typed == ["db"]:
        from dashboards.source import Local
        from studies.database import open_database

        return Local(open_database(db))
    return remote_of(context, server)


def remote_of(context: typer.Context, server: str) -> Remote:
    """The server at an address; its connections close when the command ends."""
    from dashboards.client import Remote, token_given

    return context.with_resource(Remote(server, token_given()))
