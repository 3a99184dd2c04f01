"""What is printed can be read, and copied, in 80 columns."""

from __future__ import annotations

import pytest
from rich.console import Console

from dashboards.terminal import next_commands, print_next


@pytest.mark.parametrize("name", ["demo", "group-sparsity-reduction.small/bnet-c"])
@pytest.mark.parametrize("width", [80, 120])
def test_each_command_that_comes_next_stands_whole_on_a_line(name: str, width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        print_next(console, name, "/tmp/studies/shared.db")
    lines = [line.strip() for line in captured.get().splitlines()]
    for command in next_commands(name, "/tmp/studies/shared.db"):
        assert any(line.startswith(command) for line in lines)
