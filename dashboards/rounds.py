"""What rounds of adding or removing units came to, a row a trial: where it began, and the last round that was kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards import numbers
from dashboards.tables import Table
from studies.compare import finished


def summary(trials: pd.DataFrame, history: pd.DataFrame, task: str) -> Table | None:
    """DARN's figures in one table; None where no trial noted rounds.

    "Before" is the last epoch before the first round, "after" the first epoch with the widths of the last round that
    was kept. The changes are of parameters and FLOPs, the scores those of the test set at these two epochs.
    """
    rows = [row for row in finished(trials).to_dict("records") if row["notes"].get("activity", {}).get("rounds")]
    if not rows:
        return None
    told = [_told(row, history[history["trial_id"] == row["trial_id"]].sort_values("epoch"), task) for row in rows]
    return Table(
        title=f"Rounds: what the last one kept came to (test {numbers.score_name(task)})",
        columns=("arm, trial", "sacrifice", "kept", "parameters", "change", "FLOPs", "before", "after"),
        rows=tuple(told),
    )


def _told(row: Mapping[Any, Any], epochs: pd.DataFrame, task: str) -> tuple[str, ...]:
    noted = row["notes"]["activity"]
    rounds = noted["rounds"]
    kept = [each for each in rounds if each["accepted"]]
    before = epochs[epochs["epoch"] < rounds[0]["epoch"]].tail(1)
    cells = [f"{row['arm']}, {row['number']}", numbers.knob(row["knob"]), f"{len(kept)}/{len(rounds)}"]
    if not kept:
        return (*cells, numbers.count(noted["parameters"]), "0 %", "0 %", _score(before, task), "-")
    last = kept[-1]
    same = epochs["widths"].map(lambda widths: widths == last["widths"])
    after = epochs[same & (epochs["epoch"] >= last["epoch"])].head(1)
    flops = "-" if before.empty or after.empty else _change(after["flops"].iloc[0] / before["flops"].iloc[0])
    change = _change(last["parameters"] / noted["parameters"])
    return (*cells, numbers.count(last["parameters"]), change, flops, _score(before, task), _score(after, task))


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f} %"


def _score(epochs: pd.DataFrame, task: str) -> str:
    return "-" if epochs.empty else numbers.score(float(epochs["test_accuracy"].iloc[0]), task)
