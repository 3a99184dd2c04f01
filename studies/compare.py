"""The comparison of an evaluation's arms, as in Figure 2 of the ShrinkNets paper: pure functions of two data frames.

The frames are those of `studies.query`: one row a trial, and one row a trial and epoch. What is compared is the
distribution over trials of the *test* accuracy at the best *validation* epoch; the test set chooses nothing.
Accuracies are fractions here (R^2 in a regression); the sentences say them in percent.

Of an arm with pruned trials, those that were trained to their end are a selection: they are described, but not tested
against others. It is compared by its expected best of n, where n counts every trial that was begun. A pruned one costs
what it was trained for and counts with what it had reached, but is chosen only where none was trained to its end, as
its weights are not kept. A sweep of n trials alone might have pruned others, so that of such an arm this is exact for
all its trials, and an estimate for fewer.

Trials that depend on each other, such as the steps of a path, are described, but not tested either. What validation
chooses among all of them stands as their expected best, once, at what all of them cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sizer.methods import method_class
from studies.distributions import Floats, expected_best, median_interval, spread_test
from studies.path import walks
from studies.plan import LEARNING
from studies.tables import ENDED
from studies.target import searching

_WORDS = ("arm", "trial_id", "number", "state", "status", "reason")
_NUMBERS = ("val_accuracy", "test_accuracy", "parameters", "units", "training_flops", "seconds")
MOST_PAIRS = 30
"""Pairs that are tested; of more, those with the baseline of the highest median."""


@dataclass(frozen=True)
class Arm:
    """What one arm's trials gave. Values are None where no finished trial gives one.

    `begun` says whether there is any trial; `finished` trials are the distribution (collapsed ones among them);
    `pruned` ones were ended early; `failed` ones gave no network, and `failures` names them. Medians, quartiles,
    `best`, `worst` and `spread` (the interquartile range) are of the finished trials' test accuracy. `chosen` is that
    of the one with the best validation accuracy. `parameters`, `units`, `training_flops` and `seconds` are their
    medians. `expected[n - 1]` is the expected best of n trials, finished or pruned. `cost` is training FLOPs for each
    of these, with what failed trials used shared among them. `dependent` says how trials depend on each other, if they
    do: then `expected` has NaN but for all of them. Half of the finished trials reached the comparison's
    threshold by `half_epoch`, `reached` is the share that ever did.
    """

    name: str
    method: str
    sizes: bool
    trials: int
    finished: int
    collapsed: int
    pruned: int
    failed: int
    unfinished: int
    begun: bool
    failures: tuple[str, ...]
    median: float | None
    lower: float | None
    upper: float | None
    best: float | None
    worst: float | None
    spread: float | None
    chosen: float | None
    parameters: float | None
    units: float | None
    training_flops: float | None
    seconds: float | None
    cost: float | None
    dependent: str
    expected: tuple[float, ...]
    half_epoch: int | None
    reached: float | None


@dataclass(frozen=True)
class Pair:
    """A sizing arm against a baseline arm: `difference` of medians with its 95 % interval (`low`, `high`).

    `p` is of the two-sided Mann-Whitney U test, `spread_p` of the Brown-Forsythe test (None where neither varies or one
    has under 3 trials), `parameters_ratio` is the baseline's median parameters over the sizing arm's.
    """

    arm: str
    baseline: str
    difference: float
    low: float
    high: float
    p: float
    spread_p: float | None
    parameters_ratio: float
    task: str

    @property
    def sentence(self) -> str:
        """The pair in one plain sentence."""
        if self.task == "regression":
            scale, digits, unit = 1.0, 3, "R²"
        else:
            scale, digits, unit = 100.0, 2, "points"
        step = f"{abs(self.difference) * scale:.{digits}f}"
        if float(step) == 0:
            where = f"median level with {self.baseline}"
        else:
            where = f"median {step} {unit} {'above' if self.difference > 0 else 'below'} {self.baseline}"
        interval = f"95 % interval {self.low * scale:.{digits}f} to {self.high * scale:.{digits}f}"
        doubt = ", which includes 0" if self.low <= 0 <= self.high else ""
        return f"{self.arm}: {where}, {interval}{doubt}, {_times(self.parameters_ratio)}"


@dataclass(frozen=True)
class Reach:
    """What it costs a sizing arm until its expected best is the baselines' best.

    `target` is the test accuracy of the network that validation chooses among all trials of a baseline arm, in the arm
    where it is highest: `baseline`, which spent `baseline_trials` and `baseline_flops`, on pruned ones, too.
    `trials` and `flops` are the sizing arm's, None where all its trials are not enough.
    """

    arm: str
    baseline: str
    target: float
    trials: int | None
    flops: float | None
    baseline_trials: int
    baseline_flops: float


@dataclass(frozen=True)
class Comparison:
    """Arms in the frame's order, sizing arms against baselines, and notes on what could not be compared.

    `threshold` is the validation accuracy that `Arm.half_epoch` and `Arm.reached` speak of; `spread_p` tests whether
    the arms' spreads differ (Brown-Forsythe over all arms with two finished trials or more, and none pruned).
    """

    task: str
    threshold: float | None
    spread_p: float | None
    arms: tuple[Arm, ...]
    pairs: tuple[Pair, ...]
    reaches: tuple[Reach, ...]
    notes: tuple[str, ...]


def compare(
    trials: pd.DataFrame,
    history: pd.DataFrame,
    *,
    task: str = "classification",
    threshold: float | None = None,
    arms: Mapping[str, str] | None = None,
    planned: Mapping[str, int] | None = None,
    dependent: Mapping[str, str] | None = None,
) -> Comparison:
    """Compares the arms of one evaluation.

    Args:
        trials: one row a trial (`studies.query.trials`).
        history: one row a trial and epoch (`studies.query.history`).
        task: "classification" or "regression" (accuracy is R^2 then).
        threshold: validation accuracy for "epochs to a given accuracy"; by default the lowest of the arms' medians of
            best validation accuracy, which half of the trials of every arm reach.
        arms: arm -> method of the plan, in its order; an arm without a trial so far is said to have none.
        planned: arm -> its trials in the plan; those that have no row yet count as not ended.
        dependent: arm -> how its trials depend on each other, as `dependent_arms` gives it; others' do not.
    """
    methods = {**(arms or {}), **dict(zip(trials["arm"], trials["method"], strict=True))}
    # Few columns of few types: each arm's rows are taken out of it.
    trials = trials[[*_WORDS, *_NUMBERS]].astype(dict.fromkeys(_NUMBERS, float))
    groups, done = (
        {name: found.get(name, rows.iloc[:0]) for name in methods}
        for rows in (trials, ranked(finished(trials)))
        for found in (dict(list(rows.groupby("arm", sort=False))),)
    )
    if threshold is None:
        medians = [float(group["val_accuracy"].median()) for group in done.values() if len(group)]
        threshold = min(medians) if medians else None
    epochs = {str(name): group for name, group in history.groupby("arm", sort=False)}
    described = tuple(
        _arm(
            name,
            method,
            (planned or {}).get(name, 0),
            groups[name],
            done[name],
            epochs.get(name),
            threshold,
            (dependent or {}).get(name, ""),
        )
        for name, method in methods.items()
    )
    usable = [arm for arm in described if len(arm.expected) > 1]
    scores = {
        arm.name: _sorted(done[arm.name], "test_accuracy")
        for arm in usable
        if arm.finished > 1 and not arm.pruned and not arm.dependent
    }
    sizing = [arm for arm in usable if arm.sizes]
    baselines = [arm for arm in usable if not arm.sizes]
    pairs = [(a, b) for a in sizing for b in baselines if a.name in scores and b.name in scores]
    notes = list(_notes(described))
    if len(pairs) > MOST_PAIRS:
        best = max((b for _, b in pairs), key=lambda arm: arm.median or 0.0)
        pairs = [(a, b) for a, b in pairs if b is best]
        notes.append(f"of more than {MOST_PAIRS} pairs, those with the baseline of the highest median, {best.name}")
    return Comparison(
        task=task,
        threshold=threshold,
        spread_p=spread_test(list(scores.values())),
        arms=described,
        pairs=tuple(_pair(a, b, scores[a.name], scores[b.name], task) for a, b in pairs),
        reaches=_reaches(sizing, baselines),
        notes=tuple(notes),
    )


def compare_plan(
    spec: Mapping[str, Any],
    trials: pd.DataFrame,
    history: pd.DataFrame | None = None,
    *,
    task: str = "classification",
    threshold: float | None = None,
    planned: Mapping[str, int] | None = None,
) -> Comparison:
    """Compares the arms of a plan; its stages, which only find what arms then train with, are left out.

    Args:
        spec: The plan, as `studies.plan.Plan.spec` gives it.
        trials, history, task, threshold, planned: As `compare` takes them; without a history nobody knows when half of
            an arm's trials had reached the threshold.
    """
    trials = trials[trials["stage"] == ""]
    arms = {arm: values["method"] for arm, values in spec["arms"].items() if "stage" not in values}
    return compare(
        trials,
        trials.iloc[:0] if history is None else history[history["trial_id"].isin(trials["trial_id"])],
        task=task,
        threshold=threshold,
        arms=arms,
        planned=planned,
        dependent=dependent_arms(spec),
    )


def dependent_arms(spec: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> how its trials depend on each other, of a plan as `studies.plan.Plan.spec` gives it."""
    steps = dict.fromkeys(walks(spec), "are the steps of a path, each from where the one before was")
    looking = dict.fromkeys(searching(spec), "look for sizes, each by what the ones before had, with one seed")
    learning = {
        name: f"are drawn by {sampler}, each by what the ones before came to"
        for name, arm in spec["arms"].items()
        if (sampler := arm.get("sampler", spec.get("sampler"))) in LEARNING
        and "stage" not in arm
        # One that takes its widths draws its weight decay at most.
        and ("cut" not in arm.get("widths", {}) or "weight_decay" in arm)
    }
    return {**learning, **steps, **looking}


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that count in the distribution: told complete, with an epoch to show; collapsed ones count."""
    return with_network(trials[trials["state"] == "COMPLETE"])


def with_network(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that have an epoch to show."""
    return trials[trials["val_accuracy"].notna() & trials["test_accuracy"].notna()]


def ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials from the one that would be chosen first: validation accuracy, then fewer parameters, then earlier."""
    return trials.sort_values(["val_accuracy", "parameters", "trial_id"], ascending=[False, True, True])


def _arm(
    name: str,
    method: str,
    planned: int,
    rows: pd.DataFrame,
    done: pd.DataFrame,
    epochs: pd.DataFrame | None,
    threshold: float | None,
    dependent: str,
) -> Arm:
    states = rows["state"].to_numpy()
    ended, cut = np.isin(states, ENDED), states == "PRUNED"
    dropped = rows[ended & ~cut & ~rows.index.isin(done.index)] if len(done) < (ended & ~cut).sum() else rows.iloc[:0]
    test = _sorted(done, "test_accuracy")
    counted = [done, *([ranked(with_network(rows[cut]))] if cut.any() else [])] if len(done) else [done]
    expected = expected_best(np.concatenate([each["test_accuracy"].to_numpy() for each in counted]))
    if dependent:
        expected[:-1] = np.nan
    spent = float(np.nansum(rows["training_flops"].to_numpy()[ended]))
    half_epoch, reached = _epochs_to(threshold, done, epochs)
    lower, median, upper = np.percentile(test, [25, 50, 75]).tolist() if len(test) else (None, None, None)
    return Arm(
        name=name,
        method=method,
        sizes=bool(method_class(method).sizes),
        trials=max(len(rows), planned),
        finished=len(done),
        collapsed=int((done["status"].to_numpy() == "collapsed").sum()),
        pruned=int(cut.sum()),
        failed=len(dropped),
        unfinished=max(len(rows), planned) - int(ended.sum()),
        begun=len(rows) > 0,
        failures=tuple(_failure(row) for row in dropped.to_dict("records")) if len(dropped) else (),
        median=median,
        lower=lower,
        upper=upper,
        best=float(test[-1]) if len(test) else None,
        worst=float(test[0]) if len(test) else None,
        spread=upper - lower if upper is not None and lower is not None else None,
        chosen=float(expected[-1]) if len(expected) else None,
        parameters=_median(done, "parameters"),
        units=_median(done, "units"),
        training_flops=_median(done, "training_flops"),
        seconds=_median(done, "seconds"),
        cost=spent / len(expected) if len(expected) else None,
        dependent=dependent,
        expected=tuple(expected.tolist()),
        half_epoch=half_epoch,
        reached=reached,
    )


def _failure(row: dict[Any, Any]) -> str:
    status = str(row["status"] or "failed")
    reason = str(row["reason"] or "").strip()
    return f"trial {row['number']}: {status}" + (f", {reason}" if reason else "")


def _epochs_to(
    threshold: float | None, done: pd.DataFrame, epochs: pd.DataFrame | None
) -> tuple[int | None, float | None]:
    """The epoch by which half of the finished trials reached the threshold, and the share that ever did."""
    if threshold is None or done.empty or epochs is None:
        return None, None
    there = epochs[(epochs["val_accuracy"] >= threshold) & epochs["trial_id"].isin(done["trial_id"])]
    first = np.sort(there.groupby("trial_id")["epoch"].min().to_numpy())
    needed = math.ceil(len(done) / 2)
    return (int(first[needed - 1]) if len(first) >= needed else None), len(first) / len(done)


def _pair(arm: Arm, baseline: Arm, a: Floats, b: Floats, task: str) -> Pair:
    low, high = median_interval(a, b)
    return Pair(
        arm=arm.name,
        baseline=baseline.name,
        difference=float(np.median(a) - np.median(b)),
        low=low,
        high=high,
        p=float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue),
        spread_p=spread_test([a, b]),
        parameters_ratio=(baseline.parameters or math.nan) / (arm.parameters or math.nan),
        task=task,
    )


def _reaches(sizing: list[Arm], baselines: list[Arm]) -> tuple[Reach, ...]:
    if not baselines:
        return ()
    chosen = max(baselines, key=lambda arm: arm.expected[-1])
    target = chosen.expected[-1]
    result = []
    for arm in sizing:
        trials = next((n for n, value in enumerate(arm.expected, start=1) if value >= target), None)
        result.append(
            Reach(
                arm=arm.name,
                baseline=chosen.name,
                target=target,
                trials=trials,
                flops=None if trials is None else trials * (arm.cost or 0.0),
                baseline_trials=len(chosen.expected),
                baseline_flops=len(chosen.expected) * (chosen.cost or 0.0),
            )
        )
    return tuple(result)


# The range of n values covers the median with probability 1 - 2^(1 - n): 94 % for 5, 97 % for 6.
FEW = 6


def _notes(arms: Sequence[Arm]) -> tuple[str, ...]:
    notes = []
    for arm in arms:
        if len(arm.expected) < 2:
            count = "1 finished trial" if arm.finished == 1 else "no finished trial"
            notes.append(f"{arm.name}: {count}, too few to compare (2 or more are needed)")
        if arm.unfinished:
            notes.append(f"{arm.name}: {arm.unfinished} of {arm.trials} trials not ended yet, so this is how it stands")
        if arm.collapsed:
            notes.append(f"{arm.name}: {arm.collapsed} of {arm.trials} trials collapsed (a layer emptied); they count")
        if arm.pruned:
            notes.append(
                f"{arm.name}: {arm.pruned} of {arm.trials} trials were pruned, so that the {arm.finished} of its"
                " distribution are a selection and no test is made with them; expected best of n counts all, and what"
                " they cost"
            )
        if arm.dependent:
            notes.append(
                f"{arm.name}: its trials {arm.dependent}: no test is made with them, and their expected best is that of"
                " all together, at what they cost"
            )
        if arm.failed:
            notes.append(f"{arm.name}: {arm.failed} of {arm.trials} trials gave no network; they do not count")
    if not any(arm.sizes for arm in arms) or all(arm.sizes for arm in arms):
        notes.append("a sizing arm and a baseline arm are needed for a comparison of the two")
    elif few := [arm.name for arm in arms if 1 < arm.finished < FEW and not (arm.pruned or arm.dependent)]:
        notes.append(f"fewer than {FEW} finished trials ({', '.join(few)}): the 95 % intervals are too narrow")
    return tuple(notes)


def _sorted(frame: pd.DataFrame, column: str) -> Floats:
    return np.sort(frame[column].to_numpy(dtype=np.float64))


def _median(frame: pd.DataFrame, column: str) -> float | None:
    values = frame[column].to_numpy()
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else math.nan if len(frame) else None


def _times(ratio: float) -> str:
    """How many times fewer or more parameters, from the baseline's over the sizing arm's."""
    if math.isnan(ratio):
        return "with an unknown number of parameters"
    factor, word = (ratio, "fewer") if ratio >= 1 else (1 / ratio, "more")
    return "with as many parameters" if f"{factor:.1f}" == "1.0" else f"with {factor:.1f} times {word} parameters"
