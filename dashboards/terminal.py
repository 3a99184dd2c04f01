"""What the command line prints: tables and sentences for a terminal of 80 columns or more."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from dashboards import numbers, tables
from studies.compare import Comparison
from studies.standing import Standing


def print_table(console: Console, content: tables.Table) -> None:
    """A table of text, numbers to the right; where it is too wide, ranges and headings take two lines."""
    console.print(f"\n[bold]{escape(content.title)}[/]", highlight=False)
    table = _table(content)
    if Measurement.get(console, console.options.update(max_width=1000), table).maximum > console.width - 1:
        rows = tuple(tuple(cell.replace(" .. ", " ..\n") for cell in row) for row in content.rows)
        first, *others = content.columns
        columns = (first, *("\n".join(name.rsplit(" ", 1)) for name in others))
        table = _table(replace(content, columns=columns, rows=rows))
    console.print(Padding(table, (0, 0, 0, 1), expand=False))


def _table(content: tables.Table) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(content.columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    for row in content.rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def print_lines(console: Console, lines: Sequence[str], mark: str = "-") -> None:
    """Sentences, each with a mark before it and its further lines under its first."""
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(mark, escape(line))
    console.print(grid, highlight=False)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Labels and texts, one below the other."""
    grid = Table.grid(padding=(0, 2))
    for label, text in facts.items():
        grid.add_row(f"[dim]{escape(label)}[/]", escape(text))
    console.print(grid, highlight=False)


def print_comparison(console: Console, name: str, comparison: Comparison) -> None:
    """All that a comparison says."""
    console.rule(f"[bold]{escape(name)}", align="left", style="dim")
    print_table(console, tables.accuracies(comparison))
    print_table(console, tables.costs(comparison))
    if comparison.pairs:
        print_table(console, tables.pairs(comparison))
    console.print()
    print_lines(console, tables.findings(comparison))
    if failed := tables.failures(comparison):
        console.print("\n[bold]Trials that gave no network[/]")
        print_lines(console, failed)


def print_best(console: Console, name: str, row: Mapping[Any, Any], task: str, limits: str = "") -> None:
    """The chosen network: layer -> width, its size and its scores."""
    score = numbers.score_name(task)
    knob = f", {row['knob_name']} {numbers.knob(row['knob'])}" if row.get("knob_name") else ""
    console.print(f"\n[bold]Best of {escape(name)} by validation {score}{escape(limits)}[/]", highlight=False)
    console.print(
        f" {escape(str(row['arm']))} trial {row['number']}, epoch {row['epoch']}{escape(knob)}", highlight=False
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    for layer, width in row["widths"].items():
        grid.add_row(f"  {escape(layer)}", f"{width:,}")
    console.print(grid, highlight=False)
    console.print(
        f" {numbers.count(row['parameters'])} parameters, {numbers.si(row['flops'], 'FLOP')} a sample; validation "
        f"{numbers.score(row['val_accuracy'], task)}, test {numbers.score(row['test_accuracy'], task)}",
        highlight=False,
    )


def print_status(console: Console, standing: Standing) -> None:
    """Where an evaluation stands: its arms, trials by state, epochs done, and what failed lately."""
    console.rule(f"[bold]{escape(standing.name)}", align="left", style="dim")
    console.print(f" {standing.data}, {standing.network}; {standing.driver}", highlight=False, markup=False)
    cut = any(arm.pruned for arm in standing.arms)
    told = [
        {
            "arm": arm.arm,
            "complete": arm.complete,
            "collapsed": arm.collapsed,
            **({"pruned": arm.pruned} if cut else {}),
            "failed": arm.failed,
            "running": arm.running,
            "to do": arm.waiting,
            "epochs done": f"{arm.epochs:,}",
        }
        for arm in standing.arms
    ]
    rows = tuple(tuple(str(cell) for cell in row.values()) for row in told)
    planned = {arm.planned for arm in standing.arms if not arm.stage}
    each = f"{min(planned)} planned an arm" if len(planned) == 1 else f"{min(planned)} to {max(planned)} an arm"
    title = f"Trials, {each}; collapsed ones are complete, too"
    print_table(console, tables.Table(title=title, columns=tuple(told[0]), rows=rows))
    if standing.unusual:
        lines = [
            f"{trial.arm} trial {trial.number}: {trial.status}" + (f", {trial.reason}" if trial.reason else "")
            for trial in standing.unusual
        ]
        before = sum(arm.failed + arm.collapsed for arm in standing.arms) - len(lines)
        console.print()
        print_lines(console, [*lines, *([f"and {before:,} before these"] if before > 0 else [])])
    console.print()


def print_presets(console: Console, presets: Mapping[str, str]) -> None:
    """Names and their one-line descriptions."""
    grid = Table.grid(padding=(0, 2))
    for name, description in presets.items():
        grid.add_row(f"[bold]{escape(name)}[/]", escape(description))
    console.print(grid, highlight=False)


def described_presets(texts: Mapping[str, str]) -> dict[str, str]:
    """Preset -> its description, with its cells where it has any."""
    said = {}
    for name, text in texts.items():
        values = tomllib.loads(text)
        cells = values.get("cells", {})
        said[name] = str(values.get("description", "")) + (f" Cells: {', '.join(cells)}." if cells else "")
        if scales := values.get("scale"):
            said[name] += f" Scales: full, {', '.join(scales)}."
    return said


def next_commands(name: str, db: str) -> dict[str, str]:
    """What to do with a sweep that is done: command -> what for."""
    where = "" if db == "sizer.db" else f" --db {shlex.quote(db)}"
    folder = Path(name).name
    return {
        f"sizer compare {name}{where}": "the comparison again",
        f"sizer best {name} --out {folder}-best{where}": "the best network, for sizer.load",
        f"sizer report {name}{where}": "report.html, opens offline",
        f"sizer dashboard{where}": "all of it, in the browser",
    }


def job_commands(name: str, job: str, address: str, db: str | None) -> dict[str, str]:
    """What to do with a sweep that was submitted: command -> what for."""
    where = "" if db is None else f" --db {shlex.quote(db)}"
    there = "" if db is not None else ", with SIZER_DB as there"
    return {
        f"sizer status {name} -f{where}": f"follows it{there}",
        f"sizer stop {name}{where}": f"ends it{there}",
        f"ray job logs {job} -f --address {shlex.quote(address)}": "what it says",
    }


def print_next(console: Console, name: str, db: str) -> None:
    """The commands that come next."""
    console.print("\n[bold]Next[/]")
    print_commands(console, next_commands(name, db))


def print_commands(console: Console, commands: Mapping[str, str]) -> None:
    """Commands, each with what it is for."""
    grid = Table.grid(padding=(0, 2))
    if max(map(len, commands)) + max(map(len, commands.values())) + 4 > console.width:
        for command, purpose in commands.items():  # whole lines, so that they can be copied
            line = f" [dim]{escape(purpose)}:[/]\n   [cyan]{escape(command)}[/]"
            console.print(line, highlight=False, soft_wrap=True)
        return
    for command, purpose in commands.items():
        grid.add_row(f" [cyan]{escape(command)}[/]", f"[dim]{escape(purpose)}[/]")
    console.print(grid, highlight=False)
