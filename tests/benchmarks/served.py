"""Our pages of a large database: how soon they answer."""

from __future__ import annotations

import atexit
import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sizer import Epoch
from studies.database import locate
from tests.benchmarks.row import Side
from tests.dashboards.served import Served, served
from tests.studies.filled import Trial, fill
from tests.studies.sweeps import small_plan

ARMS, TRIALS, EPOCHS = 100, 50, 100


def page(path: str) -> tuple[Side, ...]:
    """Seconds from request to the last byte; nothing that the server kept of an earlier answer is used."""
    server = running()

    def asked() -> float:
        server.app.state.evaluations.clear()
        began = time.perf_counter()
        answer = server.ask(path)
        took = time.perf_counter() - began
        assert answer.status_code == 200
        return took

    return (asked,)


@cache
def running() -> Served:
    """A server of 100 arms of 50 trials of 100 epochs each, until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-pages-", ignore_cleanup_errors=True))
    names = {f"shrinknets-{at}": sized for at in range(ARMS // 2)} | {f"fixed-{at}": fixed for at in range(ARMS // 2)}
    arms = {name: arm() for name, arm in names.items()}
    found = locate(Path(folder, "sizer.db"))[0]
    found.create()
    fill(found, small_plan(arms=arms, trials=TRIALS, epochs=EPOCHS, widths=[100]), _trials(list(arms)))
    found.close()
    return stack.enter_context(served(Path(folder, "sizer.db")))


def sized() -> dict[str, Any]:
    return {"method": "shrinknets", "lambda": {"low": 1e-5, "high": 1e-2}}


def fixed() -> dict[str, Any]:
    return {"method": "fixed", "widths": {"low": 4, "high": 100}}


def _trials(arms: list[str]) -> Iterator[Trial]:
    rng = random.Random(0)
    for arm in arms:
        for _ in range(TRIALS):
            yield Trial(arm, _epochs(rng))


def _epochs(rng: random.Random) -> list[Epoch]:
    top, width = 0.8 + 0.1 * rng.random(), rng.randint(5, 90)
    found = []
    for at in range(1, EPOCHS + 1):
        accuracy = top - 0.3 / at + rng.gauss(0, 0.003)
        units = width + (100 - width) // at
        figures = {f"{part}_{what}": accuracy for part in ("train", "val", "test") for what in ("loss", "accuracy")}
        found.append(
            Epoch(epoch=at, widths={"dense1": units}, parameters=75 * units + 10, flops=148 * units,
                  training_flops=10**6 * at * units, seconds=0.1 * at, peak_memory=10**9, **figures)
        )  # fmt: skip
    return found
