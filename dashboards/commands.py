"""What the commands show, once their arguments are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape

from dashboards import aims, graphs, numbers, rounds, tables, terminal
from dashboards.facts import facts
from dashboards.report import render
from dashboards.source import Source
from dashboards.starts import starts
from sizer import architecture
from sizer.errors import InputError, unknown
from studies import path, target
from studies.compare import Comparison, compare_plan, finished
from studies.crossval import chi_square, over_folds
from studies.equal import cuts, equals


def console() -> Console:
    """Where results go: stdout, as wide as the terminal."""
    return Console(highlight=False)


def matching(source: Source, given: str) -> list[str]:
    """The evaluations that a name means: the one of that name, or all the cells under it.

    Raises:
        UnknownNameError: there is none; the line lists those there are.
    """
    names = source.plan_names()
    found = [name for name in names if name == given] or [name for name in names if name.startswith(f"{given}/")]
    if not found:
        raise unknown("plan", given, names)
    return found


def chosen(source: Source, given: str | None) -> str:
    """The one evaluation that is meant; where none is named, the only one there is.

    Raises:
        InputError: there is none, or several; the line lists them.
    """
    names = matching(source, given) if given is not None else source.plan_names()
    if not names:
        raise InputError("no sweep in the database yet: `sizer sweep PLAN` makes one, `sizer presets` lists plans")
    if len(names) > 1:
        raise InputError(f"which plan? name one of: {', '.join(names)}")
    return names[0]


def target_of(**given: str | None) -> dict[str, Any]:
    """What `--target-params`, `--target-flops` and `--target-latency` say, for a plan.

    Raises:
        InputError: one is no size, or several sizes with commas between them.
    """
    read = {
        key: [_read_limit(key, part, f"--target-{key}") for part in text.split(",")]
        for key, text in given.items()
        if text is not None
    }
    return {"target": read} if read else {}


def limits_of(**given: str | None) -> dict[str, float]:
    """What `--max-params`, `--max-flops` and `--max-latency` say, as far as they are given.

    Raises:
        InputError: one is no size.
    """
    return {key: _read_limit(key, text, f"--max-{key}") for key, text in given.items() if text is not None}


def _read_limit(kind: str, text: str, option: str) -> float:
    return (numbers.read_latency if kind == "latency" else numbers.read_size)(text, option)


def print_aims(out: Console, source: Source, name: str) -> None:
    """What came of an evaluation's target; nothing where it has none."""
    spec = source.spec(name)
    if found := target.by_arm(spec, source.trials(name), source.history(name)):
        terminal.print_table(out, aims.table(found, spec))
        if lines := aims.not_met(found, spec):
            out.print()
            terminal.print_lines(out, lines)


def print_comparison(out: Console, source: Source, name: str, threshold: float | None = None) -> None:
    """The comparison of an evaluation's arms; `threshold` as `studies.compare.compare` takes it."""
    spec, data = source.spec(name), source.data(name)
    trials, history = source.trials(name), source.history(name)
    comparison = _compared(source, name, trials, history, threshold)
    terminal.print_comparison(out, name, comparison)
    for content in over_folds_of(trials, spec, data):
        terminal.print_table(out, content)
    summed = rounds.summary(trials[trials["stage"] == ""], history, data["task"])
    if summed is not None:
        terminal.print_table(out, summed)
    for content in _equals(spec, trials, history, data["task"]):
        terminal.print_table(out, content)
    if unequal := facts(spec).get("not equal"):
        terminal.print_lines(out, [f"the arms did not train alike: {unequal}"])


def print_best(
    out: Console,
    source: Source,
    name: str,
    arm: str | None = None,
    folder: Path | None = None,
    **limits: float,
) -> None:
    """The network that validation chooses under the limits; written to `folder` if there is one.

    Args:
        limits: as `limits_of` gives them.
    """
    row = source.best(name, arm, **{f"max_{kind}": limit for kind, limit in limits.items()})
    words = {"params": "{:,} parameters", "flops": "{:,} FLOPs", "latency": "{:.3g} ms"}
    within = [f"in {arm}"] if arm else []
    within += [f"at most {words[kind].format(limit)}" for kind, limit in limits.items()]
    task = source.data(name)["task"]
    terminal.print_best(out, name, row.to_dict(), task, "".join(f", {each}" for each in within))
    if folder is not None:
        found, weights = source.architecture(name, row)
        architecture.save(folder, found, weights)
        out.print()
        print_written(out, folder)


def print_status(out: Console, source: Source, name: str) -> None:
    """Where an evaluation stands."""
    terminal.print_status(out, source.standing(name))


def report(source: Source, name: str) -> str:
    """The HTML of an evaluation's report."""
    spec, data = source.spec(name), source.data(name)
    trials, history = _of_arms(source.trials(name), source.history(name))
    front = history.iloc[:0] if finished(trials).empty else source.front(name)
    comparison = _compared(source, name, trials, history)
    folds = over_folds_of(trials, spec, data)
    best = None if front.empty else graphs.drawn(source, name, spec, source.best(name))
    return render(
        name, comparison, trials, history, front,
        description=spec.get("description", ""), facts=facts(spec, data), folds=folds, starts=starts(spec, trials),
        walks=tuple(path.walks(spec)), wanted=target.by_arm(spec, trials, history), spec=spec, drawn=best or "",
        same=_equals(spec, trials, history, data["task"]),
    )  # fmt: skip


def _equals(spec: Mapping[str, Any], trials: pd.DataFrame, history: pd.DataFrame, task: str) -> list[tables.Table]:
    """Sizes at equal score, where an arm sizes graphs: of baselines trained as long, and to their end."""
    found = [(epochs, equals(spec, trials, history, epochs)) for epochs in cuts(spec)]
    arms = [(epochs, arm, each) for epochs, each in found for arm in dict.fromkeys(one.arm for one in each)]
    return [tables.equals([one for one in each if one.arm == arm], task, epochs) for epochs, arm, each in arms]


def print_written(out: Console, folder: Path) -> None:
    """Where a network was written, and how to have it back."""
    out.print(f" {architecture.JSON} and {architecture.WEIGHTS} written to {escape(str(folder))}; in Python:")
    out.print(f' [cyan]import sizer; net = sizer.load("{escape(str(folder))}")[/]')


def _compared(
    source: Source, name: str, trials: pd.DataFrame, history: pd.DataFrame, threshold: float | None = None
) -> Comparison:
    spec, task = source.spec(name), source.data(name)["task"]
    planned = {arm.arm: arm.planned for arm in source.standing(name).arms if not arm.stage}
    return compare_plan(spec, trials, history, task=task, threshold=threshold, planned=planned)


def over_folds_of(trials: pd.DataFrame, spec: Mapping[str, Any], data: Mapping[str, Any]) -> list[tables.Table]:
    """What cross-validation says, where there is one."""
    if not spec.get("folds"):
        return []
    arms = over_folds(trials[trials["stage"] == ""], spec["folds"])
    if not arms:
        return []
    classes = data["task"] == "classification"
    return [
        tables.folds(arms, chi_square(arms, data["test"]) if classes else [], data["task"]),
        *([tables.mean_widths(arms)] if len(arms[0].widths) <= 8 else []),
    ]


def _of_arms(trials: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials and epochs of arms: stages only find what arms then train with."""
    trials = trials[trials["stage"] == ""]
    return trials, history[history["trial_id"].isin(trials["trial_id"])]
