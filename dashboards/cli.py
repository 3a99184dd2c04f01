"""The `sizer` command: sweep a plan, look at it, compare its arms, take the best network out."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sizer.errors import InputError, SizerError, unknown

if TYPE_CHECKING:
    from studies.database import Database
    from studies.plan import Plan

EXAMPLES = """
[bold]From nothing to a network[/]

  sizer presets                            what there is to run

  sizer sweep demo                         train all its trials, go on where it was

  sizer compare demo                       the arms, as in Figure 2 of the paper

  sizer best demo --out net                the best network, for [cyan]sizer.load("net")[/]

  sizer report demo                        one HTML file that opens offline
"""

app = typer.Typer(
    name="sizer",
    help="Networks that find their own widths: one knob is searched, and compared with random widths.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

DB = Annotated[
    str, typer.Option("--db", envvar="SIZER_DB", metavar="FILE|URL", help="SQLite file or SQLAlchemy URL.")
]
Name = Annotated[
    str | None, typer.Argument(metavar="[PLAN]", help="A plan's name in the database; may be left out if it is the only one.")
]


@app.command(
    epilog="""
[bold]Examples[/]

  sizer sweep demo

  sizer sweep shrinknets-search/mlp-mnist --trials 10 --epochs 20 --name quick

  sizer sweep mine.toml --dry-run

Interrupted (Ctrl-C, kill, power), the same command goes on where it was."""
)
def sweep(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A preset, PRESET/CELL, or a .toml file.")],
    trials: Annotated[int | None, typer.Option(help="Trials of each arm, instead of the plan's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each trial, instead of the plan's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of data split, draws and training.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name in the database.")] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs (and threads) of a trial.")] = 1,
    gpus_per_trial: Annotated[float, typer.Option(help="Share of a GPU of a trial, such as 0.25.")] = 0,
    concurrency: Annotated[int | None, typer.Option(help="Trials at once; as many as fit unless given.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, HOST:PORT; else this machine.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after so long.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it costs, and stop.")] = False,
    db: DB = "sizer.db",
) -> None:
    """Trains the trials of a plan's arms into the database, then compares them."""
    from studies.plan import read_plan

    overrides = {"trials": trials, "epochs": epochs, "seed": seed, "name": name}
    plans = read_plan(plan, overrides)
    for one in plans:
        if dry_run:
            _dry_run(one, db)
            continue
        _sweep(
            one,
            db,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            concurrency=concurrency,
            address=address,
            timeout=timeout,
        )


@app.command()
def status(plan: Name = None, db: DB = "sizer.db") -> None:
    """Says where the sweeps in the database stand: trials by state, epochs done, what failed and why."""
    from dashboards.terminal import print_status
    from studies import query
    from studies.lease import holder

    database = open_database(db)
    names = matching(database, plan) if plan else query.plan_names(database)
    for name in names:
        running = holder(database, name)
        print_status(
            _out(),
            name,
            query.plan(database, name),
            query.trials(database, name),
            query.history(database, name),
            f"running in {running}" if running else "nobody runs it now",
        )
    if not names:
        _say(f"no sweep in {db} yet: `sizer sweep PLAN` makes one")


@app.command(
    epilog="""
[bold]Examples[/]

  sizer compare

  sizer compare demo --db results.db --threshold 95"""
)
def compare(
    plan: Name = None,
    threshold: Annotated[
        float | None, typer.Option(help="Validation accuracy (percent; R² as it is) for 'epochs until'.")
    ] = None,
    db: DB = "sizer.db",
) -> None:
    """Compares a plan's arms: test accuracy at the best validation epoch, size, cost, and tests of both."""
    database = _open(db)
    _compare(database, _chosen(database, plan), threshold)


@app.command(
    epilog="""
[bold]Examples[/]

  sizer best demo

  sizer best demo --max-params 10k --out small

  sizer best demo --arm shrinknets --max-flops 1.5M"""
)
def best(
    plan: Name = None,
    arm: Annotated[str | None, typer.Option(help="Choose in this arm only.")] = None,
    max_params: Annotated[str | None, typer.Option(metavar="N", help="At most so many parameters: 5000, 100k, 1.5M.")] = None,
    max_flops: Annotated[str | None, typer.Option(metavar="N", help="At most so many FLOPs a sample: 200k, 2G.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the network there.")] = None,
    db: DB = "sizer.db",
) -> None:
    """Shows the network that validation accuracy chooses, layer by layer, and writes it to a folder."""
    database = _open(db)
    _best(database, _chosen(database, plan), arm, max_params, max_flops, out)


@app.command()
def report(
    plan: Name = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")] = Path("report.html"),
    db: DB = "sizer.db",
) -> None:
    """Writes a plan's report: one HTML file with figures and tables that opens offline."""
    from dashboards.report import write

    database = _open(db)
    changed = write(out, _report(database, _chosen(database, plan)))
    _say(f"{out} written" if changed else f"{out} says this already: not written again")


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    writable: Annotated[bool, typer.Option("--writable", help="Let it rename, delete and tell.")] = False,
    db: DB = "sizer.db",
) -> None:
    """Serves Optuna Dashboard on this machine's loopback address, and the reports beside it, until Ctrl-C."""
    from dashboards import server

    database = _open(db)
    app = server.application(
        database.storage, database.artifacts, report=lambda name: _report(database, _chosen(database, name)), writable=writable
    )
    with server.server(app, port) as listening:
        address = f"http://localhost:{listening.server_port}"
        _say(f"{address}/dashboard  Optuna Dashboard{'' if writable else ', to look at only'} (Ctrl-C ends it)")
        for name in _names(database):
            _say(f"{address}{server.REPORT}{name}  report")
        try:
            listening.serve_forever()
        except KeyboardInterrupt:
            _say("ended")


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this preset's TOML.")] = None,
) -> None:
    """Lists the plans that come with sizer, or prints one as TOML to start your own from."""
    from dashboards.terminal import described_presets, print_presets
    from studies import presets

    if name is None:
        print_presets(_out(), described_presets({each: presets.text(each) for each in presets.names()}))
        return
    if name not in presets.names():
        raise unknown("preset", name, presets.names())
    typer.echo(presets.text(name), nl=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; what a user can mend is one line on stderr and exit code 2."""
    try:
        app(arguments, prog_name="sizer")
    except SizerError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise SystemExit(1) from None
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
