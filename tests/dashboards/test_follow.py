"""A sweep that runs elsewhere is followed until it is done, or nobody runs it; whoever comes too early waits."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from dashboards import follow as following
from dashboards.follow import State
from sizer.errors import InputError

Look = Sequence[State] | InputError


def state(done: int, held: bool = True, name: str = "p") -> State:
    def show(out: Console) -> None:
        out.print(f"table of {name}")

    return State(name, done, 3, 1 if held else 0, "run by process 1 on h" if held else "nobody runs it", held, show)


def followed(looks: Sequence[Look], name: str | None = "p", terminal: bool = False) -> tuple[int, str, float]:
    """Exit code, what was shown and how many seconds it took, when it is looked so; the last look stays."""
    left, now = list(looks), [0.0]

    def look() -> Sequence[State]:
        seen = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(seen, InputError):
            raise seen
        return seen

    def sleep(seconds: float) -> None:
        now[0] += seconds

    out = Console(file=io.StringIO(), width=100, force_terminal=terminal)
    code = following.follow(out, look, name, sleep=sleep, clock=lambda: now[0])
    assert isinstance(out.file, io.StringIO)
    return code, out.file.getvalue(), now[0]


def test_every_change_is_a_line_and_the_end_is_told() -> None:
    code, said, _ = followed([[state(0)], [state(1)], [state(1)], [state(3)], [state(3, held=False)]])
    assert code == 0
    assert said.splitlines() == [
        "p: 0 of 3 trials done, 1 running; run by process 1 on h",
        "p: 1 of 3 trials done, 1 running; run by process 1 on h",
        "p: 3 of 3 trials done, 1 running; run by process 1 on h",
        "p: 3 of 3 trials done, 0 running; nobody runs it",
    ]


def test_in_a_terminal_the_whole_state_is_drawn() -> None:
    code, said, _ = followed([[state(1)], [state(3, held=False)]], terminal=True)
    assert code == 0
    assert "table of p" in said


def test_a_sweep_that_was_stopped_is_exit_code_1_at_once() -> None:
    code, _, took = followed([[state(1)], [state(1, held=False)]])
    assert (code, took) == (1, following.EVERY)


def test_one_that_is_still_to_begin_is_waited_for() -> None:
    none = InputError("unknown plan 'p'; there are: q")
    code, said, _ = followed([none, none, [state(0, held=False)], [state(0)], [state(3, held=False)]])
    assert code == 0
    assert said.splitlines()[0] == "unknown plan 'p'; there are: q; waiting up to 60 s for it to begin"


def test_one_that_never_begins_is_given_up_with_the_reason() -> None:
    with pytest.raises(InputError, match="unknown plan 'p'"):
        followed([InputError("unknown plan 'p'")])
    code, _, took = followed([[state(0, held=False)]])
    assert (code, took) == (1, following.PATIENCE)


def test_a_database_that_does_not_answer_for_a_while_is_asked_again() -> None:
    gone = InputError("the database refused: connection lost")
    code, said, _ = followed([[state(1)], gone, gone, [state(2)], [state(3, held=False)]])
    assert code == 0
    assert said.count("connection lost") == 1


def test_between_the_cells_of_a_plan_nobody_runs_any() -> None:
    first, second = state(3, held=False, name="p/a"), state(1, name="p/b")
    looks = [[state(1, name="p/a")], [first], [first], [first, second], [first, state(3, held=False, name="p/b")]]
    code, said, took = followed(looks)
    assert code == 0
    assert "p/b: 3 of 3 trials done" in said
    assert took > following.SETTLED


def test_without_a_name_nothing_is_waited_for() -> None:
    assert followed([[state(1, held=False)]], name=None)[::2] == (1, 0.0)
