"""What a paper claims of an evaluation beside what came of it here: pure functions of an evaluation's data frames.

A difference of accuracies counts as published where it has the published sign and chance does not explain it, as missed
where it has the other one and chance does not explain that, and as not settled in between. A reduction counts where at
least as much goes at no more loss than published; sizes count where they are within a quarter of the published ones.
Fewer parameters at equal score count where they took no more training than the others had, by a quarter at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from sizer.methods import method_class
from studies.compare import FEW, finished
from studies.crossval import chi_square, over_folds
from studies.distributions import median_interval, spread_test
from studies.equal import cuts, equals
from studies.papers import Change, Figures, Meets, Published

AS_PUBLISHED, NOT_SETTLED, MISSED = "as published", "not settled", "missed"
LEVEL = 0.05
"""Below which p chance is taken not to explain a difference over folds, which all of them must have."""
NEAR = 1.25
"""Sizes count as the published ones within this factor."""
ROUNDED = 1e-9
"""Accuracies that differ by so little are the same."""
FALLING = -0.9
"""Rank correlation of knob and units up to which units fall."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation as the database has it, without its stages.

    Attributes:
        cell: Its cell of the preset; empty where there are none.
        spec: The plan, as `studies.plan.Plan.spec` gives it.
        data: What its data was.
        trials: One row a trial, as `studies.query.trials` gives them.
        history: One row a trial and epoch, as `studies.query.history` does.
    """

    cell: str
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    trials: pd.DataFrame
    history: pd.DataFrame

    @property
    def done(self) -> pd.DataFrame:
        """The trials that gave a network."""
        return finished(self.trials)

    def of(self, arm: str) -> pd.DataFrame:
        """The trials of an arm that gave a network."""
        done = self.done
        return done[done["arm"] == arm]

    def epochs(self, arm: str) -> pd.DataFrame:
        """The epochs of these."""
        return self.history[self.history["trial_id"].isin(self.of(arm)["trial_id"])]

    @property
    def sizing(self) -> list[str]:
        """The arms whose methods size."""
        return [arm for arm, each in self.spec["arms"].items() if method_class(each["method"]).sizes]


@dataclass(frozen=True)
class Claim:
    """One thing that a paper says, and what we saw.

    Attributes:
        what: In words.
        published: As the paper has it.
        ours: As we saw it.
        interval: Where ours may be, in words; empty where that is not known.
        verdict: `as published`, `not settled` or `missed`.
    """

    what: str
    published: str
    ours: str
    interval: str
    verdict: str


def claims(published: Published, found: Evaluated) -> list[Claim]:
    """What a paper claims of one evaluation, each with what came of it; nothing for arms that gave no network."""
    figures = {arm: each for arm, each in published.of(found.cell).items() if len(found.of(arm))}
    result = [*_accuracies(figures, found)]
    for arm, each in figures.items():
        if each.change is not None and len(found.of(published.against)):
            result += _reduced(arm, each.change, published.against, found)
        result += _sizes(arm, each, found)
        result += _ratios(arm, each, found)
    if published.steadier:
        result += _steadier(figures, found)
    if published.falls:
        result += [claim for arm in found.sizing if (claim := _falls(arm, found))]
    if published.meets is not None:
        result += _meets(published.meets, found)
    return result


def ordered(published: Published, evaluations: Sequence[Evaluated]) -> Claim | None:
    """Whether a preset's cells come in the published order; None where that says nothing, or fewer than two are there.

    Args:
        published: What the paper says; its first arm with such a figure is meant.
        evaluations: The cells.
    """
    if not published.order:
        return None
    sizes: list[tuple[float, float, str]] = []
    for each in evaluations:
        for arm, figures in published.of(each.cell).items():
            value = getattr(figures, published.order)
            if value is not None and len(rows := each.of(arm)):
                sizes.append((value, float(rows[published.order].astype(float).mean()), each.cell))
                break
    if len(sizes) < 2:
        return None
    sizes.sort()
    ours = [own for _, own, _ in sizes]
    return Claim(
        f"mean {published.order}, {' < '.join(cell for _, _, cell in sizes)}",
        ", ".join(_count(value) for value, _, _ in sizes),
        ", ".join(map(_count, ours)),
        "",
        AS_PUBLISHED if ours == sorted(ours) else MISSED,
    )


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest interval between two of the values, as far from both ends, that has the median in 95 % of cases.

    Of fewer than six values all of them do not reach that; then it is their range.
    """
    ordered = sorted(values)
    # With so many values beyond each end, the median lies beyond one where no more of them lie below it, or above.
    outside = 0
    while stats.binom.cdf(outside + 1, len(ordered), 0.5) <= 0.025:
        outside += 1
    return ordered[outside], ordered[len(ordered) - 1 - outside]


def _pairs(figures: Mapping[str, Figures], found: Evaluated) -> Iterator[tuple[str, str]]:
    """The first sizing arm with each other one, of those whose accuracy is published."""
    known = [arm for arm, each in figures.items() if each.accuracy is not None]
    first = next((arm for arm in found.sizing if arm in known), None)
    yield from ((first, other) for other in known if first not in (None, other))


def _steadier(figures: Mapping[str, Figures], found: Evaluated) -> Iterator[Claim]:
    for first, other in _pairs(figures, found):
        scores = [100 * found.of(arm)["test_accuracy"].to_numpy(dtype=np.float64) for arm in (first, other)]
        # What the test compares: it is Levene's around medians.
        spreads = [float(np.abs(each - np.median(each)).mean()) for each in scores]
        p = spread_test(scores)
        settled = p is not None and p < LEVEL and min(map(len, scores)) >= FEW
        yield Claim(
            f"{first} and {other}, test accuracy: mean distance from the median",
            "smaller",
            f"{spreads[0]:.2f} and {spreads[1]:.2f} points",
            "" if p is None else f"p {p:.2g}",
            NOT_SETTLED if not settled else AS_PUBLISHED if spreads[0] < spreads[1] else MISSED,
        )


def _accuracies(figures: Mapping[str, Figures], found: Evaluated) -> Iterator[Claim]:
    known = {arm: each.accuracy for arm, each in figures.items() if each.accuracy is not None}
    for first, other in _pairs(figures, found):
        published, of = known[first] - known[other], figures[first].of
        if folds := found.spec.get("folds"):
            arms = {each.arm: each for each in over_folds(found.done, folds)}
            (test,) = chi_square([arms[first], arms[other]], int(found.data["test"]))
            ours, points = 100 * test.difference, [100 * each for each in test.by_fold]
            interval = f"p {test.p:.2g}; by fold {', '.join(f'{each:+.2f}' for each in points)}"
            settled = test.p < LEVEL and all(each * ours > 0 for each in points)
        else:
            a, b = (np.sort(found.of(arm)["test_accuracy"].to_numpy(dtype=np.float64)) for arm in (first, other))
            low, high = median_interval(a, b)
            ours, interval = 100 * float(np.median(a) - np.median(b)), f"{100 * low:+.2f} to {100 * high:+.2f}"
            settled = min(len(a), len(b)) >= FEW and (low > 0 or high < 0)
        verdict = NOT_SETTLED if not settled else AS_PUBLISHED if ours * published > 0 else MISSED
        what = f"{first} less {other}, test accuracy"
        told = f"{published:+.2f} points" + (f" ({of})" if of else "")
        yield Claim(what, told, f"{ours:+.2f} points", interval, verdict)


def _reduced(arm: str, change: Change, against: str, found: Evaluated) -> Iterator[Claim]:
    """What the trials of a knob end with, of which half or more are no worse than published: the smallest such median.

    Validation says what is worse, against the end of the trial of the same number, which has the seed; where there is
    none, against the median. (Best epochs would not do: there are more before a removal than after it.)
    """
    base, ends = (_last(found, each).set_index("number") for each in (against, arm))
    gain = change.accuracy or 0.0
    loss = min(gain, 0.0)
    lost = {
        part: ends[part].astype(float) - base[part].astype(float).reindex(ends.index).fillna(base[part].median())
        for part in ("val_accuracy", "test_accuracy")
    }
    ends = ends.assign(good=lost["val_accuracy"] >= loss / 100 - ROUNDED, points=100 * lost["test_accuracy"])
    by_knob = ends.groupby("knob")[["good", "points", "parameters", "flops", "units"]].agg(
        {"good": "mean", "points": "median", "parameters": "median", "flops": "median", "units": "median"}
    )
    reliable = by_knob[by_knob["good"] >= 0.5]
    told = f"at {loss:+.1f} points" if loss else "at no loss"
    trials = f"{int(ends['good'].sum())} of {len(ends)} trials are as good"
    for size in ("parameters", "flops", "units"):
        published = getattr(change, size)
        if published is None:
            continue
        whole = float(base[size].astype(float).median())
        once = any(100 * (float(own) / whole - 1) <= published for own in ends.loc[ends["good"], size])
        ours, verdict = "in no half of a knob's trials", NOT_SETTLED if once else MISSED
        if len(reliable):
            best = reliable.sort_values(size).iloc[0]
            own, points = 100 * (float(best[size]) / whole - 1), float(best["points"])
            ours = f"{own:+.1f} %, test {points:+.2f} points"
            if own <= published:
                verdict = NOT_SETTLED if gain > 0 and points <= 0 else AS_PUBLISHED
        what = f"{arm}: {_named(size)} at the end, against {against}, {told}"
        yield Claim(what, f"{published:+.1f} %" + (f", {gain:+.1f} points" if gain else ""), ours, trials, verdict)


def _sizes(arm: str, figures: Figures, found: Evaluated) -> Iterator[Claim]:
    rows, epochs = found.of(arm), found.epochs(arm)
    for each in figures.sizes:
        ids = rows.loc[np.isclose(rows["knob"].astype(float), each.knob, rtol=1e-6), "trial_id"]
        own = epochs[epochs["trial_id"].isin(ids)]
        units = own.assign(units=own["widths"].map(total)).groupby("epoch")["units"].median()
        both = [(at, was, float(units[at])) for at, was in zip(each.epochs, each.units, strict=True) if at in units]
        if not both:
            continue
        ratios = [ours / was for _, was, ours in both]
        what = f"{found.spec['arms'][arm]['method']}, knob {each.knob:g}: units after epoch"
        yield Claim(
            f"{what} {', '.join(str(at) for at, _, _ in both)}",
            ", ".join(_count(was) for _, was, _ in both),
            ", ".join(_count(ours) for _, _, ours in both),
            f"ratio {min(ratios):.2f} to {max(ratios):.2f}",
            AS_PUBLISHED if all(1 / NEAR <= ratio <= NEAR for ratio in ratios) else MISSED,
        )


def _ratios(arm: str, figures: Figures, found: Evaluated) -> Iterator[Claim]:
    if not figures.ratios:
        return
    least = min(figures.ratios[1:] or figures.ratios)
    for cut in cuts(found.spec):
        rows = [each for each in equals(found.spec, found.trials, found.history, cut) if each.arm == arm]
        if not rows:
            continue
        ratios = [each.ratio or 0.0 for each in rows]
        middle = float(np.median(ratios))
        # A smaller network that took more training than the others were given says nothing of either.
        dearer = np.median([each.spent / each.flops if each.spent else math.inf for each in rows])
        reached = [ratio for ratio in ratios if ratio]
        missing = len(ratios) - len(reached)
        trained = "trained to their end" if cut is None else f"cut to {cut} epochs"
        yield Claim(
            f"{arm}: parameters of layered networks, {trained}, over its own at equal validation score",
            f"{min(figures.ratios):.2f} to {max(figures.ratios):.2f}",
            (f"{min(reached):.2f} to {max(reached):.2f}" if reached else "none is as good")
            + (f", and {missing} of {len(ratios)} not reached" if reached and missing else ""),
            f"median {middle:.2f}, for {dearer:.2g} times the FLOPs"
            if math.isfinite(dearer)
            else f"median {middle:.2f}",
            MISSED if middle < least / NEAR else NOT_SETTLED if middle < least or dearer > NEAR else AS_PUBLISHED,
        )


def _falls(arm: str, found: Evaluated) -> Claim | None:
    last = _last(found, arm)
    if last["knob"].nunique() < 3:
        return None
    correlation = float(stats.spearmanr(last["knob"].astype(float), last["units"]).statistic)
    by_knob = last.groupby("knob")["units"].median().sort_index()
    return Claim(
        f"{arm}: units at the end, knob {', '.join(f'{knob:.3g}' for knob in by_knob.index)}",
        "fewer",
        ", ".join(map(_count, by_knob)),
        f"rank correlation {correlation:.2f}",
        AS_PUBLISHED if correlation <= FALLING else MISSED,
    )


def _meets(meets: Meets, found: Evaluated) -> Iterator[Claim]:
    lasts = {arm: _last(found, arm)["widths"] for arm in found.sizing if len(found.of(arm))}
    if len(lasts) < 2:
        return
    every = [widths for last in lasts.values() for widths in last]
    for layer in ["", *([meets.layer] if all(meets.layer in widths for widths in every) else [])]:
        ends = [float(last.map(partial(units, layer=layer)).mean()) for last in lasts.values()]
        ratio = max(ends) / min(ends)
        yield Claim(
            f"units{f' of {layer}' if layer else ''} at the end, {', '.join(lasts)}",
            "alike",
            ", ".join(map(_count, ends)),
            f"largest over smallest {ratio:.2f}",
            AS_PUBLISHED if ratio <= meets.within else MISSED,
        )


def _last(found: Evaluated, arm: str) -> pd.DataFrame:
    """The last epoch of each trial of an arm, with its units."""
    last = found.epochs(arm).sort_values("epoch").groupby("trial_id").tail(1)
    return last.assign(units=last["widths"].map(total))


def total(widths: Mapping[str, int]) -> int:
    """Units of all layers; of a graph its neurons."""
    return widths.get("neurons", sum(widths.values()))


def units(widths: Mapping[str, int], layer: str = "") -> int:
    """Units of a layer; of all together where none is named."""
    return widths[layer] if layer else total(widths)


def _named(size: str) -> str:
    return "FLOPs" if size == "flops" else size


def _count(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value):,}"
