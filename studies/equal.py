"""Sizes at equal validation score: what a sizing arm needs to be as good as each network of the baselines.

The papers that grow networks compare so: each row is a fixed network, beside it the size at which the other is as good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sizer.methods import Method, method_class
from studies.compare import finished


@dataclass(frozen=True)
class Equal:
    """A baseline's network and a sizing arm's trials at the same validation score.

    Attributes:
        arm: The sizing arm.
        baseline, number: The baseline's arm and trial.
        score: Its best validation score.
        parameters, flops: Its parameters, and the training FLOPs until then.
        smallest: Of each of the arm's trials that got there, the fewest parameters with which it was as good.
        trials: How many trials the arm has.
        spent: Median training FLOPs until then, of those that got there; None where none did.
    """

    arm: str
    baseline: str
    number: int
    score: float
    parameters: int
    flops: float
    smallest: tuple[int, ...]
    trials: int
    spent: float | None

    @property
    def median(self) -> float | None:
        """Median of the fewest parameters over all trials; None where half of them did not get there."""
        missing = [math.inf] * (self.trials - len(self.smallest))
        middle = float(np.median([*self.smallest, *missing])) if self.trials else math.inf
        return None if not math.isfinite(middle) else middle

    @property
    def ratio(self) -> float | None:
        """The baseline's parameters over that median."""
        return None if self.median is None else self.parameters / self.median


def cuts(spec: Mapping[str, Any]) -> list[int | None]:
    """To how many epochs the baselines are cut, one comparison each: as many as graphs have, and not at all."""
    kinds = _kinds(spec)
    graphs = [_epochs(spec, name) for name, kind in kinds.items() if kind.takes == "graph"]
    others = [_epochs(spec, name) for name, kind in kinds.items() if not kind.sizes]
    if not graphs or not others:
        return []
    return [*sorted({own for own in graphs if own < max(others)}), None]


def equals(
    spec: Mapping[str, Any], trials: pd.DataFrame, history: pd.DataFrame, epochs: int | None = None
) -> list[Equal]:
    """Each baseline network that no smaller one matches, by parameters, against every arm that sizes graphs.

    A trial of a baseline counts with its best validation epoch. One of the arm passes through many sizes: it counts
    with the smallest at which any of its epochs was as good.

    Args:
        spec: The plan, as `studies.plan.Plan.spec` gives it.
        trials: One row a trial, as `studies.query.trials` gives them.
        history: One row a trial and epoch, as `studies.query.history` does.
        epochs: Of the baselines only so many count, and arms that have no more; all unless given.
    """
    kinds = _kinds(spec)
    done = finished(trials)
    ids = done.loc[done["arm"].isin([name for name, kind in kinds.items() if not kind.sizes]), "trial_id"]
    fixed = history[history["trial_id"].isin(ids)]
    fixed = fixed if epochs is None else fixed[fixed["epoch"] <= epochs]
    fixed = fixed.sort_values(["val_accuracy", "epoch"], ascending=[False, True]).groupby("trial_id").head(1)
    fixed = fixed.sort_values(["parameters", "val_accuracy"], ascending=[True, False])
    best, rows = -math.inf, []
    for row in fixed.to_dict("records"):
        if row["val_accuracy"] > best:
            best = row["val_accuracy"]
            rows.append(row)
    found = []
    graphs = [name for name, kind in kinds.items() if kind.takes == "graph"]
    for name in (name for name in graphs if epochs is None or _epochs(spec, name) <= epochs):
        ids = done.loc[done["arm"] == name, "trial_id"]
        own = history[history["trial_id"].isin(ids)].sort_values(["parameters", "epoch"])
        for row in rows:
            there = own[own["val_accuracy"] >= row["val_accuracy"]].groupby("trial_id").first()
            found.append(
                Equal(
                    name, row["arm"], row["number"], row["val_accuracy"], int(row["parameters"]),
                    float(row["training_flops"]), tuple(map(int, there["parameters"])), len(ids),
                    float(there["training_flops"].median()) if len(there) else None,
                )
            )  # fmt: skip
    return found


def _kinds(spec: Mapping[str, Any]) -> dict[str, type[Method]]:
    return {name: method_class(arm["method"]) for name, arm in spec["arms"].items() if "stage" not in arm}


def _epochs(spec: Mapping[str, Any], arm: str) -> int:
    return int(spec["arms"][arm].get("epochs", spec["epochs"]))
