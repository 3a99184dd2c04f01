"""What the commands do that train, or follow what trains, once their arguments are read."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dashboards import follow as following
from dashboards import numbers, progress, tables, terminal
from dashboards.commands import console, matching, print_aims, print_best, print_comparison, print_written
from dashboards.facts import facts, retraining
from dashboards.published import publish
from dashboards.source import Local, Source
from sizer import Epoch
from sizer.errors import InputError
from studies import estimate, jobs, query
from studies.compare import finished
from studies.database import open_database
from studies.plan import Plan
from studies.reading import read_text
from studies.retrain import Retraining, Trained, best_of
from studies.standing import Standing
from studies.sweep import Outcome

if TYPE_CHECKING:
    from dashboards.client import Remote

INTERRUPTED = 130
_LOOK_EVERY = 0.5


def sweep(plan: Plan, db: str, run: Callable[..., Outcome], *, compared: bool = True) -> int:
    """Runs what is left of a plan, then compares its arms and shows the best network.

    Args:
        plan: the evaluation.
        db: the database, as the user named it.
        run: `studies.sweep.run` with everything but `watch`.
        compared: whether to compare and show.

    Returns:
        The exit code: 0, or 130 when interrupted or stopped from elsewhere: a loop over plans ends with it.
    """
    out = console()
    out.rule(f"[bold]{escape(plan.name)}", align="left", style="dim")
    terminal.print_facts(out, facts(plan.spec()))
    planned = sum(plan.planned(arm) for arm in plan.every)
    goes_on = "the same command goes on where it was"
    try:
        with progress.watch(out, lambda: query.data(db, plan.name)["task"]) as watch:
            outcome = run(watch=watch)
    except KeyboardInterrupt:
        print(f"sizer: interrupted; {goes_on}", file=sys.stderr)
        return INTERRUPTED
    if outcome.stopped in ("interrupted", "stopped"):
        by = "interrupted" if outcome.stopped == "interrupted" else f"stopped from elsewhere ({outcome.by})"
        # Where a limit ends the arms, nobody knows how many trials there will be.
        limited = plan.max_training_flops is not None or plan.target is not None
        left = "" if limited else f" with {outcome.left} of {planned} trials to do"
        print(f"sizer: {by}{left}; {goes_on}", file=sys.stderr)
        return INTERRUPTED
    out.print()
    source = Local(open_database(db))
    if not outcome.already_done:
        publish(source, plan.name)
    asked = planned
    planned = sum(arm.planned for arm in source.standing(plan.name).arms if plan.planned(arm.arm))
    if outcome.already_done:
        out.print(f"All {planned} trials of {plan.name} are done already; nothing was run.")
    elif outcome.left:
        took = numbers.duration(outcome.seconds)
        out.print(f"Stopped after {took} with {min(outcome.left, planned)} of {planned} trials to do; {goes_on}.")
    else:
        ended = sum(sum(counts.values()) for counts in outcome.ended.values())
        limit = "target asks for" if plan.target is not None else "training FLOPs allow"
        more = f"; the {limit} no more" if planned < asked else f"; all {planned} are done"
        out.print(f"{ended} trials ended in {numbers.duration(outcome.seconds)}{more}.")
    print_aims(out, source, plan.name)
    if not compared or (outcome.left and finished(source.trials(plan.name)).empty):
        return 0
    out.print()
    print_comparison(out, source, plan.name)
    print_best(out, source, plan.name)
    terminal.print_next(out, plan.name, db)
    return 0


def submit(plans: Sequence[Plan], address: str, db: str | None, options: Mapping[str, Any]) -> None:
    """Hands sweeps to a Ray cluster and says how to follow them.

    Args:
        plans: one, or the cells of one.
        address: where the cluster takes jobs.
        db: the database as the cluster reaches it; None for that of the cluster's own environment.
        options: as `studies.jobs.hand_over` takes them.
    """
    name = plans[0].name if len(plans) == 1 else plans[0].name.rpartition("/")[0]
    job = jobs.hand_over(plans, address, db, name, options)
    print(f"{name} {'submitted' if job.fresh else 'runs already'} as job {job.name}")
    terminal.print_commands(console(), terminal.job_commands(name, job.name, address, db))


def submit_to(
    remote: Remote, source: str, overrides: Mapping[str, Any], scale: str, options: Mapping[str, Any]
) -> None:
    """Hands a plan to a server, which starts it, and says what became of it.

    Args:
        remote: the server.
        source: a preset, PRESET/CELL, or the path of a .toml file.
        overrides: as `studies.reading.read_plan` takes them; None is ignored.
        scale: as `studies.reading.read_plan` takes it.
        options: of `studies.jobs.hand_over`; the server decides these.

    Raises:
        InputError: the server refuses it, or an option was given that is the server's.
    """
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise InputError(f"{', '.join(given)}: the server decides that; leave it out")
    plan = {"plan": read_text(source)} if source.endswith(".toml") else {"preset": source}
    said = {name: value for name, value in overrides.items() if value is not None}
    words = {"starting": "submitted", "running": "runs already", "done": "is done already"}
    for started in remote.submit({**plan, "scale": scale, "overrides": said}):
        print(f"{started['name']} {words.get(started['state'], started['state'])}")


def follow(opened: Callable[[], Source], plan: str | None) -> int:
    """Shows where the sweeps of a source stand until they are done or nobody runs them; gives the exit code.

    Args:
        opened: gives the source; asked again while it is not there.
        plan: which of them; all unless given.
    """
    found: list[Source] = []

    def look() -> list[following.State]:
        if not found:
            found.append(opened())
        (source,) = found
        names = matching(source, plan) if plan is not None else source.plan_names()
        return [_state(source.standing(name)) for name in names]

    return following.follow(console(), look, plan)


def _state(standing: Standing) -> following.State:
    planned = sum(arm.planned for arm in standing.arms)
    running = sum(arm.running for arm in standing.arms)
    return following.State(
        name=standing.name,
        done=planned - running - sum(arm.waiting for arm in standing.arms),
        planned=planned,
        running=running,
        driver=standing.driver,
        held=standing.held,
        show=lambda out: terminal.print_status(out, standing),
    )


def stop(source: Source, names: Sequence[str], *, wait: bool) -> None:
    """Asks whoever runs one of the evaluations to end.

    Args:
        source: where they are.
        names: one, or the cells of a plan.
        wait: return when it has ended.

    Raises:
        InputError: nobody runs any of them.
    """
    run = [name for name in names if source.driver(name) != query.NOBODY] or names[:1]
    for name in run:
        print(f"asked {source.stop(name)} to stop {name}; it ends within seconds", flush=True)
    if wait:
        while any(source.driver(name) != query.NOBODY for name in run):
            time.sleep(_LOOK_EVERY)
        print("stopped; the same sweep command goes on where it was")


def dry_run(plan: Plan, cpus_per_trial: float = 1) -> None:
    """Says what a sweep would run and what it would cost; some steps of each arm's networks are timed for it."""
    out = console()
    out.rule(f"[bold]{escape(plan.name)}", align="left", style="dim")
    terminal.print_facts(out, facts(plan.spec()))
    arms = estimate.dry_run(plan, cpus=max(1, int(cpus_per_trial)))
    terminal.print_table(out, tables.estimates(arms))
    out.print()
    sizing = ["a sizing arm is counted from a tenth of its starting widths to all of them; it may end elsewhere"]
    terminal.print_lines(
        out, [tables.estimated(arms), *(sizing if any(arm.sizes for arm in plan.arms.values()) else [])]
    )


@contextlib.contextmanager
def _ctrl_c() -> Iterator[Callable[[], None]]:
    """Gives what raises KeyboardInterrupt once Ctrl-C came: a library may have swallowed that of the moment itself."""
    pressed = threading.Event()

    def handle(kind: int, frame: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def retrain(
    folder: Path, given: Mapping[str, Any], *, seeds: int, from_scratch: bool, target: Path | None = None
) -> int:
    """Trains the architecture in a folder again and shows what each seed gave.

    Args:
        folder: what `sizer best --out` wrote.
        given: settings instead of those it was trained with, as `studies.retrain.Retraining` takes them.
        seeds: how many, from 0.
        from_scratch: from fresh weights.
        target: the folder for the best of them; None writes nothing.

    Returns:
        The exit code: 0, or 130 when interrupted.
    """
    out = console()
    results: list[Trained] = []
    try:
        found = Retraining(folder, from_scratch=from_scratch, given=given)
        task = found.architecture.task
        out.rule(f"[bold]{escape(str(folder))}", align="left", style="dim")
        terminal.print_facts(out, retraining(found, seeds))
        if found.architecture.changed():
            terminal.print_lines(out, [f"{found.architecture.network} has changed since this network was trained"])
        with progress.watch(out, lambda: task, "seed") as watch, _ctrl_c() as check:
            watch.begin({"retrain": (0, seeds)})
            for seed in range(seeds):

                def report(epoch: Epoch, seed: int = seed) -> None:
                    check()
                    watch.epoch("retrain", seed, epoch, of=found.settings["epochs"])

                results.append(found.run(seed, report, keep_weights=target is not None))
                watch.trial("retrain", seed, "", results[-1].status, results[-1].reason)
    except KeyboardInterrupt:
        print(f"sizer: interrupted with {len(results)} of {seeds} seeds trained; nothing was written", file=sys.stderr)
        return INTERRUPTED
    best = best_of(results)
    terminal.print_table(out, tables.retrained(results, task))
    if target is not None:
        found.save(target, best)
        out.print(f"\n Seed {best.seed}, the best by validation {numbers.score_name(task)}:")
        print_written(out, target)
    return 0
