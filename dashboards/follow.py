"""Follows sweeps that run anywhere by what stands in their database: live in a terminal, else line by line."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sizer.errors import InputError

EVERY = 2.0
PATIENCE = 60.0
"""Seconds in which a sweep must begin, or its database answer again."""
SETTLED = 30.0
"""Seconds without a driver after which no further cell of a plan is expected."""


@dataclass(frozen=True)
class State:
    """Where an evaluation stands.

    Attributes:
        name: Its name.
        done: Trials that ended.
        planned: Trials that are to be.
        running: Trials that run.
        driver: Who runs it, in words.
        held: Whether anybody does.
        show: Prints all of it.
    """

    name: str
    done: int
    planned: int
    running: int
    driver: str
    held: bool
    show: Callable[[Console], None] = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.done} of {self.planned} trials done, {self.running} running; {self.driver}"


def follow(
    out: Console,
    look: Callable[[], Sequence[State]],
    name: str | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Shows states until all is done, or nobody runs any of it any more.

    Args:
        out: Where to.
        look: Gives the states.
        name: What was asked for, and may still begin; of one with cells, the next cell may.
        sleep: How to wait.
        clock: How to measure that.

    Returns:
        The exit code: 0 when all is done, 1 when trials are left and nobody runs them.

    Raises:
        InputError: There is nothing to look at for `PATIENCE` seconds; the last reason why.
    """
    begun, since = False, clock()
    with _screen(out) as say:
        while True:
            states, wrong = _looked(look)
            held = any(state.held for state in states)
            done = bool(states) and all(state.done >= state.planned for state in states)
            if held:
                begun, since = True, clock()
            waits = name is not None and not (held or done or begun)
            cells = any(state.name != name for state in states) and name is not None
            enough = PATIENCE if waits or wrong is not None else SETTLED if cells else 0.0
            note = f"waiting up to {PATIENCE:.0f} s for it to begin" if waits else ""
            say(states, "; ".join(each for each in (str(wrong or ""), note) if each))
            if not held and clock() - since >= enough:
                if wrong is not None:
                    raise wrong
                return 0 if done else 1
            sleep(EVERY)


def _looked(look: Callable[[], Sequence[State]]) -> tuple[Sequence[State], InputError | None]:
    try:
        return look(), None
    except InputError as error:
        return (), error


@contextlib.contextmanager
def _screen(out: Console) -> Iterator[Callable[[Sequence[State], str], None]]:
    """Gives what shows states and a note: anew in place in a terminal, else as lines where they have changed."""
    if not out.is_terminal:
        before: dict[str, str] = {}

        def lines(states: Sequence[State], note: str) -> None:
            for key, line in [*((state.name, str(state)) for state in states), ("", note)]:
                if line and before.get(key) != line:
                    out.print(line, markup=False, highlight=False, soft_wrap=True)
                before[key] = line

        yield lines
        return
    with Live(console=out, auto_refresh=False) as live:

        def draw(states: Sequence[State], note: str) -> None:
            page = Console(file=io.StringIO(), width=out.width, force_terminal=True, highlight=False)
            for state in states:
                state.show(page)
            page.print(note, markup=False)
            assert isinstance(page.file, io.StringIO)
            live.update(Text.from_ansi(page.file.getvalue().rstrip()), refresh=True)

        yield draw
