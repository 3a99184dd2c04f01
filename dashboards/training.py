"""`sizer sweep`, `submit` and `retrain`: what trains."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dashboards.options import (
    CONCURRENCY,
    DB,
    EPOCHS,
    NAME,
    PACK_HELP,
    PLAN,
    SCALE,
    SEED,
    SERVER,
    TARGET_FLOPS,
    TARGET_LATENCY,
    TARGET_PARAMS,
    TRIAL_TIMEOUT,
    TRIALS,
    remote_of,
)
from sizer.errors import InputError


def sweep(
    plan: PLAN,
    trials: TRIALS = None,
    epochs: EPOCHS = None,
    seed: SEED = None,
    scale: SCALE = "full",
    name: NAME = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Train this arm alone, and what it takes from; repeatable.")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs (and threads) of a trial.")] = 1,
    gpus_per_trial: Annotated[float, typer.Option(help="Share of a GPU of a trial, such as 0.25.")] = 0,
    concurrency: CONCURRENCY = None,
    pack: Annotated[str, typer.Option(metavar="K|auto", help=PACK_HELP)] = "auto",
    target_params: TARGET_PARAMS = None,
    target_flops: TARGET_FLOPS = None,
    target_latency: TARGET_LATENCY = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster, HOST:PORT or auto; else this machine.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after so long.")] = None,
    trial_timeout: TRIAL_TIMEOUT = None,
    files: Annotated[
        str | None,
        typer.Option(envvar="SIZER_FILES", metavar="PATH|URI", help="Where weights go: a shared folder or s3://..."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and what it costs, and stop.")] = False,
    db: DB = "sizer.db",
) -> None:
    """Trains a plan's trials, then compares its arms.

    Interrupted (Ctrl-C, kill, power), the same command goes on where it was; done, it changes nothing.
    """
    from dashboards import commands, running
    from studies import jobs
    from studies import sweep as sweeps
    from studies.reading import read_plan

    jobs.check_inside(db, files)
    target = commands.target_of(params=target_params, flops=target_flops, latency=target_latency)
    overrides = {"trials": trials, "epochs": epochs, "seed": seed, "name": name, **target}
    plans = [one.only(arm) if arm else one for one in read_plan(plan, overrides, scale)]
    for one in plans:
        if dry_run:
            running.dry_run(one, cpus_per_trial)
            continue
        run = partial(
            sweeps.run,
            one,
            db,
            cpus_per_trial=cpus_per_trial,
            gpus_per_trial=gpus_per_trial,
            concurrency=concurrency,
            pack=pack,
            address=address,
            timeout=timeout,
            trial_timeout=trial_timeout,
            files=files,
        )
        code = running.sweep(one, db, run)
        if code:
            raise typer.Exit(code)


def submit(
    context: typer.Context,
    plan: PLAN,
    address: Annotated[
        str | None, typer.Option(help="Where the Ray cluster takes jobs, http://HOST:8265; or --server.")
    ] = None,
    trials: TRIALS = None,
    epochs: EPOCHS = None,
    seed: SEED = None,
    scale: SCALE = "full",
    name: NAME = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="CPUs (and threads) of a trial.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="Share of a GPU of a trial, such as 0.25.")] = None,
    concurrency: CONCURRENCY = None,
    pack: Annotated[str | None, typer.Option(metavar="K|auto", help=PACK_HELP)] = None,
    target_params: TARGET_PARAMS = None,
    target_flops: TARGET_FLOPS = None,
    target_latency: TARGET_LATENCY = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after so long.")] = None,
    trial_timeout: TRIAL_TIMEOUT = None,
    files: Annotated[
        str | None, typer.Option(metavar="PATH|URI", help="Where weights go, as every machine there sees it.")
    ] = None,
    db: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The database as the cluster reaches it, without a password; else SIZER_DB there."
        ),
    ] = None,
    server: SERVER = None,
) -> None:
    """Hands a sweep to a Ray cluster, where it runs as a job, or to a `sizer dashboard`, and returns.

    To a cluster the plan and your own modules travel. The same plan submitted again is the same study.
    """
    from dashboards import commands, running
    from studies.reading import read_plan

    target = commands.target_of(params=target_params, flops=target_flops, latency=target_latency)
    overrides = {"trials": trials, "epochs": epochs, "seed": seed, "name": name, **target}
    options = {
        "cpus-per-trial": cpus_per_trial, "gpus-per-trial": gpus_per_trial, "concurrency": concurrency,
        "pack": pack, "timeout": timeout, "trial-timeout": trial_timeout, "files": files,
    }  # fmt: skip
    if address is None and server is not None:
        running.submit_to(remote_of(context, server), plan, overrides, scale, {**options, "db": db})
        return
    if address is None:
        raise InputError("say where to: --address of a Ray cluster, or --server of a `sizer dashboard`")
    running.submit(read_plan(plan, overrides, scale), address, db, options)


def retrain(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `sizer best --out` wrote.")],
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="A data set, also NAME@PICTURE, an .npz file or MODULE:FUNCTION.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each seed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often, with seeds from 0.")] = 5,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="From fresh weights, not from its own.")] = False,
    learning_rate: Annotated[float | None, typer.Option(help="The optimiser's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples of a step.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, rmsprop or sgd.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the best of them there.")] = None,
) -> None:
    """Trains a network of `sizer best --out` again, its widths fixed.

    From its own weights unless told otherwise. Data and training are those it was found with, unless given.
    """
    from dashboards import running

    given = {
        "data": data, "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size,
        "optimizer": optimizer,
    }  # fmt: skip
    code = running.retrain(folder, given, seeds=seeds, from_scratch=from_scratch, target=out)
    if code:
        raise typer.Exit(code)
