"""The progress bar of a run."""

from __future__ import annotations

import sys

from sizer.errors import InputError
from sizer.history import Epoch


class Bar:
    """A line on stderr: epochs and steps done, loss, validation metric, units.

    By tqdm, imported when a bar is asked for: it comes with Optuna, and without a terminal it writes the same line,
    seldom, where rich would stay silent to the end.

    Args:
        epochs: all of them.
        done: how many a run that goes on has already.
        steps: optimiser steps of an epoch, if known.
    """

    def __init__(self, epochs: int, done: int, steps: int | None) -> None:
        try:
            from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types
        except ImportError:
            raise InputError("progress=True needs tqdm: pip install tqdm, or leave progress out") from None
        self.epochs = epochs
        self.line = tqdm(
            total=None if steps is None else epochs * steps,
            initial=0 if steps is None else done * steps,
            unit="step",
            desc=f"epoch {done + 1}/{epochs}",
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def step(self) -> None:
        self.line.update()

    def end_epoch(self, epoch: Epoch) -> None:
        self.line.set_description(f"epoch {min(epoch.epoch + 1, self.epochs)}/{self.epochs}", refresh=False)
        self.line.set_postfix(
            loss=f"{epoch.train_loss:.4g}",
            val=f"{epoch.val_accuracy:.4f}",
            units=sum(epoch.widths.values()),
        )

    def close(self) -> None:
        self.line.close()
