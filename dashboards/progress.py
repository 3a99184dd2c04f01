"""Progress of a sweep: one live bar an arm in a terminal, else line by line."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from dashboards import numbers
from sizer.history import Epoch, best_epoch

EVERY = 15.0
WIDE = 100


class _Arms:
    """How far each arm is, from what the sweep tells."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self.planned: dict[str, int] = {}
        self.shares: dict[tuple[str, int], float] = {}
        self.best: dict[tuple[str, int], Epoch] = {}

    def begin(self, totals: dict[str, tuple[int, int]]) -> None:
        self.done = {arm: done for arm, (done, _) in totals.items()}
        self.planned = {arm: planned for arm, (_, planned) in totals.items()}

    def epoch(self, arm: str, number: int, epoch: Epoch, of: int) -> None:
        place = arm, number
        self.shares[place] = epoch.epoch / of
        self.best[place] = best_epoch([self.best.get(place, epoch), epoch])

    def end(self, arm: str, number: int) -> Epoch | None:
        """A trial ended; its best epoch of those that were told here."""
        self.done[arm] = self.done.get(arm, 0) + 1
        self.shares.pop((arm, number), None)
        return self.best.pop((arm, number), None)

    def share(self, arm: str) -> float:
        """Trials done, with the shares of those that run."""
        return self.done[arm] + sum(share for (name, _), share in self.shares.items() if name == arm)

    def count(self, arm: str) -> str:
        return f"{self.done[arm]}/{self.planned[arm]}"


class Lines:
    """Line by line: every trial that ends, and every `EVERY` seconds of silence where the trials are.

    Used as ``with Lines(console, task) as watch: sweep.run(plan, database, watch=watch)``.
    """

    def __init__(
        self,
        console: Console,
        task: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        noun: str = "trial",
    ) -> None:
        self._noun = noun
        self._console = console
        self._asked = task
        self._task = "classification"
        self._clock = clock
        self._last = clock()
        self._arms = _Arms()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def begin(self, totals: dict[str, tuple[int, int]]) -> None:
        """Says how many trials each arm has to do."""
        self._task = self._asked()
        self._arms.begin(totals)
        if any(done < planned for done, planned in totals.values()):
            self._say(f"{self._noun}s done: " + ", ".join(f"{arm} {self._arms.count(arm)}" for arm in totals))

    def expect(self, arm: str, trials: int) -> None:
        """Counts the arm's trials of so many from now on."""
        self._arms.planned[arm] = trials

    def epoch(self, arm: str, number: int, epoch: Epoch, of: int) -> None:
        """Says the epoch when nothing was said for a while."""
        self._arms.epoch(arm, number, epoch, of)
        if self._clock() - self._last >= EVERY:
            self._say(f"{arm} {self._noun} {number}: epoch {epoch.epoch}/{of}, {described(epoch, self._task)}")

    def trial(self, arm: str, number: int, state: str, status: str, reason: str) -> None:
        """Says how a trial ended."""
        best = self._arms.end(arm, number)
        self._say(f"{arm} {self._arms.count(arm)}: {ended(number, best, status, reason, self._task, self._noun)}")

    def note(self, line: str) -> None:
        """Says the line."""
        self._say(line)

    def _say(self, line: str) -> None:
        self._last = self._clock()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """One live bar an arm, with the widths and the accuracy of the epoch that ended last."""

    def __init__(self, console: Console, task: Callable[[], str], noun: str = "trial") -> None:
        self._noun = noun
        self._console = console
        self._asked = task
        self._task = "classification"
        self._arms = _Arms()
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if console.width >= WIDE else 12),
            TextColumn("{task.fields[count]}", justify="right"),
            TextColumn("{task.fields[latest]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
            refresh_per_second=4,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, totals: dict[str, tuple[int, int]]) -> None:
        """Draws the bars, each as far as its arm is."""
        self._task = self._asked()
        self._arms.begin(totals)
        for arm, (done, planned) in totals.items():
            self._bars[arm] = self._progress.add_task(
                escape(arm), total=planned, completed=done, count=self._arms.count(arm), latest=""
            )

    def expect(self, arm: str, trials: int) -> None:
        """Draws the arm's bar as of so many trials from now on."""
        self._arms.planned[arm] = trials
        self._progress.update(self._bars[arm], total=trials)

    def epoch(self, arm: str, number: int, epoch: Epoch, of: int) -> None:
        """Moves the arm's bar and shows the epoch beside it."""
        self._arms.epoch(arm, number, epoch, of)
        if self._console.width >= WIDE:
            text = f"{self._noun} {number}, epoch {epoch.epoch}/{of}: {described(epoch, self._task)}"
        else:
            text = f"{epoch.epoch}/{of} {short(epoch.widths, 4)}: {numbers.score(epoch.val_accuracy, self._task)}"
        self._move(arm, text)

    def trial(self, arm: str, number: int, state: str, status: str, reason: str) -> None:
        """Moves the arm's bar; a trial that neither completed nor was pruned is named above the bars."""
        best = self._arms.end(arm, number)
        self._move(arm, None)
        if status not in ("complete", "pruned"):
            self.note(f"{arm}: {ended(number, best, status, reason, self._task, self._noun)}")

    def note(self, line: str) -> None:
        """Says the line above the bars."""
        self._progress.console.print(line, markup=False, highlight=False)

    def _move(self, arm: str, latest: str | None) -> None:
        self._progress.update(self._bars[arm], completed=self._arms.share(arm), count=self._arms.count(arm))
        if latest is not None:
            self._progress.update(self._bars[arm], latest=escape(latest))


def watch(console: Console, task: Callable[[], str], noun: str = "trial") -> Bars | Lines:
    """Bars in a terminal, lines elsewhere; `task` is asked when the sweep begins, and its data has been read.

    Args:
        console: Where to.
        task: Gives "classification" or "regression".
        noun: What is counted.
    """
    return Bars(console, task, noun) if console.is_terminal else Lines(console, task, noun=noun)


def described(epoch: Epoch, task: str) -> str:
    """An epoch's validation score, widths and parameters."""
    score = numbers.score(epoch.val_accuracy, task)
    return f"validation {score}, {short(epoch.widths, 6)} units, {numbers.count(epoch.parameters)} parameters"


def ended(number: int, best: Epoch | None, status: str, reason: str, task: str, noun: str = "trial") -> str:
    """How a trial ended: its best epoch, or why there is none."""
    line = f"{noun} {number} {status or 'ended'}" + (f" ({reason})" if reason else "")
    return f"{line}: {described(best, task)}" if best and status in ("complete", "collapsed") else line


def short(widths: dict[str, int], layers: int) -> str:
    """Widths as "34-22-16", those of a deep network cut in the middle."""
    values = [str(width) for width in widths.values()]
    return "-".join(values if len(values) <= layers else [*values[: layers - 2], "..", values[-1]])
