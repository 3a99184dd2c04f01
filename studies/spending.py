"""What searches come to for the same FLOPs of training: pure functions of the data frames of an evaluation over seeds.

Each seed is an evaluation of its own. Trials count in the order in which they were asked for, as long as all together
have spent no more than is looked at, and of the one that goes beyond it the epochs that do not. A pruned trial costs
what it was trained for; only trials trained to their end give a network, as no weights of others are kept. Validation
accuracy chooses, among all epochs that fit; the test accuracy of the chosen epoch is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from studies.compare import finished


@dataclass(frozen=True)
class Seed:
    """One search with one seed.

    Attributes:
        trials: Of one arm, one row a trial, as `studies.query.trials` gives them.
        history: One row a trial and epoch, as `studies.query.history` does.
    """

    trials: pd.DataFrame
    history: pd.DataFrame

    @property
    def spent(self) -> float:
        """FLOPs of all trials."""
        return float(self.trials["training_flops"].fillna(0).sum())

    def within(self, flops: float) -> Seed:
        """What so many FLOPs allow: whole trials, and the first epochs of the next one."""
        ordered = self.trials.sort_values("number")
        costs = ordered["training_flops"].fillna(0)
        before = dict(zip(ordered["trial_id"], costs.cumsum() - costs, strict=True))
        spent = self.history["trial_id"].map(before).astype(float) + self.history["training_flops"]
        history = self.history[spent <= flops]
        begun = ordered["trial_id"].isin(history["trial_id"]) | (costs.cumsum() <= flops)
        return Seed(ordered[begun], history)

    def chosen(self, **limits: float) -> pd.Series | None:
        """The epoch that validation chooses among those of at most so many `parameters` or `flops`; None if none is."""
        epochs = self.history[self.history["trial_id"].isin(finished(self.trials)["trial_id"])]
        for column, limit in limits.items():
            epochs = epochs[epochs[column] <= limit]
        if epochs.empty:
            return None
        order = ["val_accuracy", "parameters", "flops", "trial_id", "epoch"]
        return epochs.sort_values(order, ascending=[False, True, True, True, True]).iloc[0]

    def until(self, accuracy: float) -> float:
        """FLOPs spent until an epoch of a trial that is trained to its end has such a validation accuracy; inf if none.

        Of the trial itself what it had spent by then counts, and of those before all.
        """
        ordered = self.trials.sort_values("number")
        before = dict(
            zip(ordered["trial_id"], ordered["training_flops"].fillna(0).cumsum().shift(fill_value=0.0), strict=True)
        )
        done = self.history[self.history["trial_id"].isin(finished(self.trials)["trial_id"])]
        there = done[done["val_accuracy"] >= accuracy]
        return min(
            (
                before[trial] + float(flops)
                for trial, flops in zip(there["trial_id"], there["training_flops"], strict=True)
            ),
            default=math.inf,
        )


@dataclass(frozen=True)
class Spread:
    """A figure over seeds: its median, nan where half of the seeds or more have none, and its ends among the others."""

    median: float
    low: float
    high: float
    of: int

    @staticmethod
    def over(values: Sequence[float]) -> Spread:
        """Of one value a seed; where there is none, inf or -inf, whichever is worse than any."""
        known = [value for value in values if math.isfinite(value)]
        middle = float(np.median(values)) if 2 * len(known) > len(values) else math.nan
        return Spread(middle, min(known, default=math.nan), max(known, default=math.nan), len(known))


@dataclass(frozen=True)
class Spending:
    """The arms of an evaluation over seeds, each on the same FLOPs.

    Attributes:
        flops: What every arm may spend: the plan's, or the least that one has spent.
        arms: Arm -> its searches, a seed each, in one order of seeds for all.
    """

    flops: float
    arms: Mapping[str, tuple[Seed, ...]]

    @staticmethod
    def of(seeds: Sequence[tuple[pd.DataFrame, pd.DataFrame]], flops: float) -> Spending:
        """Of pairs of trials and history, one a seed; arms that gave no network with one of the seeds are left out."""
        found: dict[str, tuple[Seed, ...]] = {}
        for arm in dict.fromkeys(seeds[0][0]["arm"]):
            own = tuple(Seed(trials[trials["arm"] == arm], history[history["arm"] == arm]) for trials, history in seeds)
            if all(seed.chosen() is not None for seed in own):
                found[arm] = own
        flops = min([flops, *(seed.spent for each in found.values() for seed in each)])
        return Spending(flops, {arm: tuple(seed.within(flops) for seed in each) for arm, each in found.items()})

    def until_as_good(self, arm: str, as_arm: str, share: float) -> list[float]:
        """The share of the FLOPs after which an arm is as good as another with a share of them, by validation.

        Seed by seed; inf where it never is, and nan where the other has nothing.
        """
        costs = []
        for own, other in zip(self.arms[arm], self.arms[as_arm], strict=True):
            best = other.within(share * self.flops).chosen()
            costs.append(math.nan if best is None else own.until(float(best["val_accuracy"])) / self.flops)
        return costs

    def chosen(self, arm: str, column: str, **limits: float) -> list[float]:
        """A column of each seed's chosen epoch; -inf where nothing fits."""
        rows = [seed.chosen(**limits) for seed in self.arms[arm]]
        return [-math.inf if row is None else float(row[column]) for row in rows]
