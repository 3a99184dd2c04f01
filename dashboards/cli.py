"""The `sizer` command: sweep a plan, look at it, compare its arms, take the best network out."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dashboards import maintenance, sizing, training
from dashboards.options import DB, SERVER, STUDIED, source_of
from sizer.errors import SizerError, unknown

EXAMPLES = """[bold]From nothing to a network[/]
  sizer presets                what there is to run
  sizer sweep demo             train all its trials, or go on where it was
  sizer compare demo           its arms, as in Figure 2 of the paper
  sizer best demo --out net    the best network, for sizer.load("net")
  sizer retrain net            the same widths, trained again over 5 seeds
  sizer report demo            one HTML file that opens offline

[bold]A network of a size[/]
  sizer size --data mine.npz --network mlp --max-params 100k --out net"""

app = typer.Typer(
    name="sizer",
    help="Networks that find their own widths: one knob is searched, and compared with random widths.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(maintenance.app)
app.command(
    epilog="""[bold]Examples[/]
  sizer size --data mine.npz --max-params 100k
  sizer size --data fashion_mnist --network lenet --max-flops 500k --out small
  sizer size --data mine.npz --network mine:net --epochs 10"""
)(sizing.size)
app.command(
    epilog="""[bold]Examples[/]
  sizer sweep demo
  sizer sweep shrinknets-search/mlp-mnist --trials 10 --epochs 20 --name quick
  sizer sweep demo --arm shrinknets
  sizer sweep demo --name small --target-params 5k,20k
  sizer sweep mine.toml --dry-run"""
)(training.sweep)
app.command(
    epilog="""[bold]Examples[/]
  sizer submit demo --address http://10.0.0.1:8265
  sizer submit mine.toml --address http://10.0.0.1:8265 --gpus-per-trial 0.25
  sizer submit demo --server http://studies.example.org:8080"""
)(training.submit)


@app.command()
def status(
    context: typer.Context,
    plan: STUDIED = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until all is done or nobody runs it.")] = False,
    db: DB = "sizer.db",
    server: SERVER = None,
) -> None:
    """Says where the sweeps in the database stand.

    Trials by state, epochs done, whether a driver runs it, and what failed and why.
    """
    from dashboards import commands, running

    if follow:
        raise typer.Exit(running.follow(lambda: source_of(context, db, server), plan))
    source = source_of(context, db, server)
    for name in commands.matching(source, plan) if plan else source.plan_names():
        commands.print_status(commands.console(), source, name)


@app.command()
def stop(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A plan's name in the database.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    db: DB = "sizer.db",
    server: SERVER = None,
) -> None:
    """Ends a sweep, wherever it runs, as Ctrl-C would there.

    Nothing is lost: the same sweep command goes on where it was.
    """
    from dashboards import commands, running

    source = source_of(context, db, server)
    running.stop(source, commands.matching(source, plan), wait=wait)


@app.command(
    epilog="""[bold]Examples[/]
  sizer compare
  sizer compare demo --db results.db --threshold 95"""
)
def compare(
    context: typer.Context,
    plan: STUDIED = None,
    threshold: Annotated[
        float | None, typer.Option(help="Validation accuracy (percent; R² as it is) for 'epochs until'.")
    ] = None,
    db: DB = "sizer.db",
    server: SERVER = None,
) -> None:
    """Compares a plan's arms: accuracy, size and cost.

    A trial counts with the test accuracy at its best validation epoch. Sizing arms are tested against the baselines.
    """
    from dashboards import commands

    source = source_of(context, db, server)
    names = commands.matching(source, plan) if plan else [commands.chosen(source, plan)]
    for name in names:
        # Accuracies are typed as they are shown.
        scale = 1.0 if source.data(name)["task"] == "regression" else 100.0
        level = None if threshold is None else threshold / scale
        commands.print_comparison(commands.console(), source, name, level)


@app.command(
    epilog="""[bold]Examples[/]
  sizer best demo
  sizer best demo --max-params 10k --out small
  sizer best demo --arm shrinknets --max-flops 1.5M"""
)
def best(
    context: typer.Context,
    plan: STUDIED = None,
    arm: Annotated[str | None, typer.Option(help="Choose in this arm only.")] = None,
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many parameters: 5000, 100k, 1.5M.")
    ] = None,
    max_flops: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many FLOPs a sample: 200k, 2G.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="At most so long a pass, as its worker timed it: 0.2ms.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the network there.")] = None,
    db: DB = "sizer.db",
    server: SERVER = None,
) -> None:
    """Shows the best network, and writes it to a folder.

    Validation accuracy chooses it, under a budget from the best epoch that fits. sizer.load(FOLDER) gives it back.
    """
    from dashboards import commands

    source = source_of(context, db, server)
    name = commands.chosen(source, plan)
    limits = commands.limits_of(params=max_params, flops=max_flops, latency=max_latency)
    commands.print_best(commands.console(), source, name, arm, out, **limits)


app.command(
    epilog="""[bold]Examples[/]
  sizer retrain net
  sizer retrain net --epochs 50 --seeds 10 --from-scratch --out again
  sizer retrain net --data mine.npz --learning-rate 1e-4"""
)(training.retrain)


@app.command()
def report(
    context: typer.Context,
    plan: STUDIED = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to.")] = Path("report.html"),
    db: DB = "sizer.db",
    server: SERVER = None,
) -> None:
    """Writes a plan's report: one HTML file that opens offline."""
    from dashboards import commands
    from dashboards.report import write

    source = source_of(context, db, server)
    changed = write(out, commands.report(source, commands.chosen(source, plan)))
    typer.echo(f"{out} written" if changed else f"{out} is up to date")


@app.command(
    epilog="""[bold]Examples[/]
  sizer results --db results.db
  sizer results --db results.db --notes docs/results.toml --out docs/results.md"""
)
def results(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; else it is printed.")] = None,
    notes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .toml file of Markdown texts by preset or evaluation.")
    ] = None,
    db: DB = "sizer.db",
) -> None:
    """Sets the presets' evaluations in a database beside what their papers published.

    One page of Markdown: figures, intervals, costs, origins, the command of each, and whether it came out as published.
    """
    from dashboards import results
    from dashboards.report import write
    from dashboards.source import Local
    from studies.database import open_database

    said = ["sizer results", *(f"--{name} {value}" for name, value in (("notes", notes), ("out", out)) if value)]
    found = results.results(Local(open_database(db)), results.read_notes(notes) if notes else {}, " ".join(said))
    if out is None:
        typer.echo(found, nl=False)
        return
    typer.echo(f"{out} written" if write(out, found) else f"{out} is up to date")


@app.command(
    epilog="""[bold]Examples[/]
  sizer dashboard
  sizer dashboard --host 0.0.0.0 --allowed-host studies.example.org --read-token-file read --write-token-file write"""
)
def dashboard(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let Optuna Dashboard rename, delete and tell, for who may write.")
    ] = False,
    read_token_file: Annotated[
        Path | None, typer.Option(envvar="SIZER_READ_TOKEN_FILE", metavar="FILE", help="Holds the token that reads.")
    ] = None,
    write_token_file: Annotated[
        Path | None, typer.Option(envvar="SIZER_WRITE_TOKEN_FILE", metavar="FILE", help="Holds the one that writes.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(envvar="SIZER_ALLOWED_HOSTS", metavar="NAME", help="Another of its names."),
    ] = None,
    jobs: Annotated[
        str | None, typer.Option(envvar="SIZER_JOBS", metavar="URL", help="A Ray cluster that runs what is submitted.")
    ] = None,
    db: DB = "sizer.db",
) -> None:
    """Serves our pages, Optuna Dashboard and the API, to whoever has the token.

    On this machine alone unless told otherwise. Without token files it makes a token for this run, and prints it.
    """
    from dashboards import serving

    serving.run(db, serving.Access(host, read_token_file, write_token_file, allowed_host or [], writable), port, jobs)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this preset's TOML.")] = None,
) -> None:
    """Lists the plans that come with sizer, or prints one.

    What it prints is TOML: `sizer presets demo > mine.toml` starts a plan of your own.
    """
    from rich.console import Console

    from dashboards.terminal import described_presets, print_presets
    from studies import presets

    if name is None:
        print_presets(
            Console(highlight=False), described_presets({each: presets.text(each) for each in presets.names()})
        )
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


def _fail(line: str) -> NoReturn:
    print("sizer: " + " ".join(line.split()), file=sys.stderr)
    raise SystemExit(2)
