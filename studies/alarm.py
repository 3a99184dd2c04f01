"""The time limit of a trial: its worker ends when the time is over, whatever it does."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import TextIO

from sizer.errors import SizerError


class TimeUpError(SizerError):
    """A trial has trained for as long as it may."""


class Alarm:
    """Ends this process when a trial has trained for too long, and leaves where every thread was.

    faulthandler waits in a thread of C that needs no lock of Python's: it ends a process, too, that spins in C or
    waits for a device. A process has one such alarm, and none outside the block.

    Args:
        limit: Seconds of training, over all attempts; None is no limit.
        file: For the tracebacks; it is removed where the alarm did not go off.
    """

    def __init__(self, limit: float | None, file: Path) -> None:
        self.limit = limit
        self._path = file
        self._file: TextIO | None = None

    def set(self, spent: float) -> None:
        """Lets it go off when the limit is reached, of which so many seconds are spent."""
        if self._file is not None and self.limit is not None:
            left = max(0.001, self.limit - spent)
            faulthandler.dump_traceback_later(left, exit=True, file=self._file)

    def off(self) -> None:
        """Stops the clock, as for what is not training."""
        faulthandler.cancel_dump_traceback_later()

    def __enter__(self) -> Alarm:
        if self.limit is not None:
            self._file = self._path.open("w")
        return self

    def __exit__(self, *_error: object) -> None:
        self.off()
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


def time_up(limit: float | None, epochs: int) -> str:
    """Why a trial was ended, in one line."""
    return f"it trained for longer than its limit of {limit or 0:g} s (--trial-timeout), ended after epoch {epochs}"
