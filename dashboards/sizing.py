"""`sizer size`: from data and a budget to a network in a folder, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dashboards.options import DB, NAME, SEED
from sizer import datasets
from sizer.errors import InputError


def size(
    data: Annotated[
        str, typer.Option(metavar="DATA", help="A data set, also NAME@PICTURE, an .npz file or MODULE:FUNCTION.")
    ],
    network: Annotated[str, typer.Option(metavar="NETWORK", help="A network, or MODULE:FUNCTION.")] = "mlp",
    max_params: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many parameters: 5000, 100k, 1.5M.")
    ] = None,
    max_flops: Annotated[
        str | None, typer.Option(metavar="N", help="At most so many FLOPs a sample, instead: 200k, 2G.")
    ] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="At most so long a pass of one sample, instead: 0.2ms, 150us.")
    ] = None,
    widths: Annotated[str | None, typer.Option(metavar="N,...", help="The widths to start from, as 500,300.")] = None,
    method: Annotated[
        str | None, typer.Option(help="How the network is sized: shrinknets, of a graph growing, unless given.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the network that fits, or of a trial.")] = 20,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials at most.")] = None,
    seed: SEED = None,
    name: NAME = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the network goes, with its report.")] = Path(
        "sized"
    ),
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs (and threads) of a trial.")] = 1,
    gpus_per_trial: Annotated[float, typer.Option(help="Share of a GPU of a trial, such as 0.25.")] = 0,
    db: DB = "sizer.db",
) -> None:
    """Finds a network of the size that you ask for.

    Under a budget one run shrinks a network until it fits, and tunes it. Without one it walks through all sizes.

    For a latency, and with methods that grow, it searches for the knob instead.

    The best network by validation accuracy goes to a folder, with a report. The same command goes on where it was.
    """
    from functools import partial

    from dashboards import commands, running
    from dashboards.report import write
    from dashboards.source import Local
    from studies import sizing, sweep
    from studies.database import open_database

    limits = commands.limits_of(params=max_params, flops=max_flops, latency=max_latency)
    start = _widths(widths)
    if (file := datasets.file_of(data)) is not None:
        data = datasets.with_file(data, file.expanduser().resolve())
    method = method or sizing.method_for(network)
    plan = sizing.plan(
        data, network, limits, method=method, widths=start, epochs=epochs, trials=trials, seed=seed, name=name,
    )  # fmt: skip
    run = partial(sweep.run, plan, db, cpus_per_trial=cpus_per_trial, gpus_per_trial=gpus_per_trial)
    if code := running.sweep(plan, db, run, compared=False):
        raise typer.Exit(code)
    source, terminal = Local(open_database(db)), commands.console()
    commands.print_best(terminal, source, plan.name, None, out, **limits)
    write(out / "report.html", commands.report(source, plan.name))
    terminal.print(f" {out / 'report.html'} shows all sizes that were found")


def _widths(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.replace("-", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--widths must be positive numbers with commas between them, such as 500,300, got {text}")
    return [int(part) for part in parts]
