"""What is printed can be read, and copied, in 80 columns."""

from __future__ import annotations

import pytest
from rich.console import Console

from dashboards.tables import Table
from dashboards.terminal import next_commands, print_next, print_table


@pytest.mark.parametrize("name", ["demo", "group-sparsity-reduction.small/bnet-c"])
@pytest.mark.parametrize("width", [80, 120])
def test_each_command_that_comes_next_stands_whole_on_a_line(name: str, width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        print_next(console, name, "/tmp/studies/shared.db")
    lines = [line.strip() for line in captured.get().splitlines()]
    for command in next_commands(name, "/tmp/studies/shared.db"):
        assert any(line.startswith(command) for line in lines)


NAMES = ("shrinknets", "no-growth-no-tuning")


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_of_ranges_loses_nothing_in_a_narrow_terminal(width: int) -> None:
    cells = ("20", "46,270 .. 4,118,860", "314 k .. 17.5 M", "3.04 GB", "49 s .. 14 min 52 s")
    columns = ("arm", "trials", "parameters", "FLOPs a sample", "memory", "time a trial")
    console = Console(width=width)
    with console.capture() as captured:
        print_table(console, Table("To expect", columns, tuple((name, *cells) for name in NAMES)))
    said = captured.get()
    assert all(len(line) <= width for line in said.splitlines())
    for name in NAMES:
        assert name in said
    for part in (part for cell in cells for part in cell.split(" .. ")):
        assert said.count(part) >= 2, "no number is broken or cut"
