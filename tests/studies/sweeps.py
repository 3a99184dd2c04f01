"""Small evaluations on digits, and somebody who watches them; run as a module, one sweep in a process of its own."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from sizer import Epoch
from studies.artifacts import files_of
from studies.database import locate
from studies.plan import Plan
from studies.sweep import run

ARMS = {"shrinknets": {"lambda": {"low": 1e-3, "high": 1e-2}}, "fixed": {"widths": {"low": 4, "high": 16}}}


def small_plan(**values: Any) -> Plan:
    """Two arms of two trials and three epochs, unless told otherwise."""
    given = {"name": "small", "data": "digits", "network": "mlp", "widths": [12], "epochs": 3, "trials": 2}
    return Plan(**{**given, "batch_size": 256, "arms": ARMS, **values})


def epoch(number: int, accuracy: float = 0.5, width: int = 8, **values: Any) -> Epoch:
    """An epoch as a worker could have reported it."""
    losses = {f"{part}_loss": 1.0 for part in ("train", "val", "test")}
    scores = {"train_accuracy": accuracy, "val_accuracy": accuracy, "test_accuracy": accuracy - 0.01}
    size = {"parameters": 75 * width + 10, "flops": 148 * width, "training_flops": 1000 * number}
    spent = {"seconds": 0.5 * number, "peak_memory": 10**9, "widths": {"dense1": width}}
    return Epoch(**{"epoch": number, **losses, **scores, **size, **spent, **values})


def folder_of(member: dict[str, Any]) -> Path:
    """Where a trial's run is."""
    return Path(member["files"]) / str(member["run"])


class Seen:
    """Keeps what a sweep says."""

    def __init__(self, aloud: bool = False) -> None:
        self.lines: list[tuple[str, ...]] = []
        self._aloud = aloud

    def begin(self, totals: dict[str, tuple[int, int]]) -> None:
        self._say("begin", json.dumps(totals))

    def epoch(self, arm: str, number: int, epoch: Epoch, of: int) -> None:
        self._say("epoch", arm, str(number), str(epoch.epoch), str(of))

    def expect(self, arm: str, trials: int) -> None:
        self._say("expect", arm, str(trials))

    def trial(self, arm: str, number: int, state: str, status: str, reason: str) -> None:
        self._say("trial", arm, str(number), state, status, reason)

    def note(self, line: str) -> None:
        self._say("note", line)

    def of(self, kind: str) -> list[tuple[str, ...]]:
        """The lines of one kind, without their kind."""
        return [line[1:] for line in self.lines if line[0] == kind]

    def _say(self, *words: str) -> None:
        self.lines.append(words)
        if self._aloud:
            print("\t".join(words), flush=True)


def rows(database: Path | str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What plain SQL answers, on a file or on a PostgreSQL."""
    if str(database).startswith("postgresql://"):
        with psycopg.connect(str(database)) as server:
            return server.execute(query.replace("?", "%s"), values).fetchall()  # type: ignore[arg-type]
    with sqlite3.connect(database) as connection:
        found = connection.execute(query, values).fetchall()
    connection.close()
    return found


def check_whole(database: Path | str, plan: Plan, settled: int | None = None) -> None:
    """Every trial is there once and ended, every epoch once, and nothing is left lying about.

    With ``settled`` every arm has so many trials, which say all about its target.
    """
    states = Counter(state for (state,) in rows(database, "select state from trials"))
    assert states["RUNNING"] == states["WAITING"] == 0
    expected = sorted((plan.study_name(arm), k) for arm in plan.every for k in range(settled or plan.planned(arm)))
    assert sum(states.values()) == len(expected)
    numbers = rows(database, "select study_name, number from trials join studies using (study_id)")
    assert sorted(numbers) == expected
    epochs = Counter(rows(database, "select trial_id, epoch from sizer_history"))
    assert set(epochs.values()) == {1}
    assert len(epochs) == len(expected) * plan.epochs
    assert rows(database, "select * from sizer_leases") == []
    files = files_of(locate(database)[0], plan.name)
    assert files.names("runs") == []
    kept = {name for (name,) in rows(database, "select artifact_id from sizer_weights")}
    assert set(files.names("artifacts")) == kept


if __name__ == "__main__":
    _, path, text = sys.argv
    values = json.loads(text)
    options = values.pop("options", {})
    done = run(small_plan(**values), path, watch=Seen(aloud=True), **options)
    print("done", done.left, done.stopped, sep="\t", flush=True)
