"""What a comparison says, as sentences and tables of text: the terminal and the report show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dashboards import numbers
from studies.compare import Arm, Comparison, Reach
from studies.crossval import Folds, Test
from studies.equal import Equal

if TYPE_CHECKING:
    from studies.estimate import ArmEstimate
    from studies.retrain import Trained


@dataclass(frozen=True)
class Table:
    """A table of text; the first column is words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown(table: Table, level: str = "") -> list[str]:
    """A table as lines of Markdown, under its title: a heading where it has a level such as `##`."""
    rows = [table.columns, *table.rows]
    shown = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in shown]
    lines.insert(1, f"| {' | '.join(['---', *['---:'] * (len(table.columns) - 1)])} |")
    title = [f"{level}{table.title}:" if not level else f"{level} {table.title}", ""] if table.title else []
    return [*title, *lines, ""]


def accuracies(comparison: Comparison) -> Table:
    """The distribution over trials of the test score at the best validation epoch, a row an arm."""
    task = comparison.task
    return Table(
        title=f"Test {_named(task)} at the best validation epoch",
        columns=("arm", "trials", "median", "quartiles", "worst", "best", "spread", "chosen"),
        rows=tuple(
            (
                arm.name,
                f"{arm.finished}" if arm.finished == arm.trials else f"{arm.finished}/{arm.trials}",
                _bare(arm.median, task),
                "-" if arm.lower is None else f"{_bare(arm.lower, task)} .. {_bare(arm.upper, task)}",
                _bare(arm.worst, task),
                _bare(arm.best, task),
                _bare(arm.spread, task),
                _bare(arm.chosen, task),
            )
            for arm in comparison.arms
        ),
    )


def costs(comparison: Comparison) -> Table:
    """Size and cost of a trial (medians over trials), and how soon half of the trials reach the threshold."""
    threshold = numbers.score(comparison.threshold, comparison.task)
    timed = any(arm.reached is not None for arm in comparison.arms)
    until = f", and epochs until validation {threshold}" if timed else ""
    columns = ("arm", "parameters", "units", "training", "time", *(("half of trials", "ever") if timed else ()))
    return Table(
        title=f"Size and cost of a trial (medians){until}",
        columns=columns,
        rows=tuple(
            (
                arm.name,
                numbers.count(arm.parameters),
                numbers.count(arm.units),
                numbers.si(arm.training_flops, "FLOP"),
                numbers.duration(arm.seconds),
                "-" if arm.reached is None else f"epoch {arm.half_epoch}" if arm.half_epoch else "never",
                "-" if arm.reached is None else f"{100 * arm.reached:.0f} %",
            )[: len(columns)]
            for arm in comparison.arms
        ),
    )


def pairs(comparison: Comparison) -> Table:
    """Each sizing arm against each baseline arm: difference of medians, its interval, and the two tests."""
    task = comparison.task
    return Table(
        title=f"Difference of medians ({'R²' if task == 'regression' else 'points'}), with tests",
        columns=("arm, baseline", "diff.", "95 % interval", "p median", "p spread", "params"),
        rows=tuple(
            (
                f"{pair.arm}, {pair.baseline}",
                _signed(pair.difference, task),
                f"{_signed(pair.low, task)} .. {_signed(pair.high, task)}",
                numbers.pvalue(pair.p),
                numbers.pvalue(pair.spread_p),
                _factor(1 / pair.parameters_ratio),
            )
            for pair in comparison.pairs
        ),
    )


def equals(found: Sequence[Equal], task: str, epochs: int | None = None) -> Table:
    """Sizes of one arm at equal validation score, a row a network of the baselines, of which so many epochs count."""
    return Table(
        title=f"{found[0].arm}: median parameters at equal validation {_named(task)}; baselines "
        + ("in full" if epochs is None else f"cut to {epochs} epochs"),
        columns=("baseline", "score", "params", "ours", "range", "ratio", "FLOPs", "ours"),
        rows=tuple(
            (
                f"{each.baseline}, {each.number}",
                _bare(each.score, task),
                numbers.count(each.parameters),
                "-" if each.median is None else numbers.count(round(each.median)),
                "-" if not each.smallest else f"{min(each.smallest):,} .. {max(each.smallest):,}",
                "-" if each.ratio is None else f"{each.ratio:.2f}",
                numbers.si(each.flops),
                "-" if each.median is None else numbers.si(each.spent),
            )
            for each in found
        ),
    )


def folds(arms: Sequence[Folds], tests: Sequence[Test], task: str) -> Table:
    """The arms over their folds, each tested against the first."""
    p = {test.other: test for test in tests}
    first = f", and chi-square against {arms[0].arm}" if tests else ""
    return Table(
        title=f"Test {_named(task)} over folds of each arm's best point{first}",
        columns=("arm", "folds", "mean ± 2 SD", "parameters", *(("diff.", "p") if tests else ())),
        rows=tuple(
            (
                arm.arm,
                str(arm.done),
                f"{_bare(arm.mean, task)} ± {'-' if np.isnan(arm.two_sd) else _bare(arm.two_sd, task)}",
                numbers.count(round(arm.parameters)),
                *(_tested(p.get(arm.arm), task) if tests else ()),
            )
            for arm in arms
        ),
    )


def mean_widths(arms: Sequence[Folds]) -> Table:
    """Layer -> mean width over the folds, a row an arm."""
    layers = list(dict.fromkeys(layer for arm in arms for layer in arm.widths))
    return Table(
        title="Mean widths over folds",
        columns=("arm", *layers),
        rows=tuple(
            (arm.arm, *(f"{arm.widths[layer]:.0f}" if layer in arm.widths else "-" for layer in layers)) for arm in arms
        ),
    )


def _tested(test: Test | None, task: str) -> tuple[str, str]:
    if test is None:
        return "", ""
    return _signed(-test.difference, task), numbers.pvalue(test.p) + (" *" if test.significant else "")


def estimates(arms: Sequence[ArmEstimate]) -> Table:
    """What a sweep would cost, from the smallest to the largest network of each arm."""
    return Table(
        title="To expect, from the smallest to the largest network of each arm",
        columns=("arm", "trials", "parameters", "FLOPs a sample", "memory", "time a trial"),
        rows=tuple(
            (
                arm.arm,
                str(arm.trials),
                _between(numbers.count(arm.smallest.parameters), numbers.count(arm.largest.parameters)),
                _between(numbers.si(arm.smallest.flops), numbers.si(arm.largest.flops)),
                numbers.si(arm.largest.memory, "B"),
                _between(numbers.duration(arm.smallest.seconds), numbers.duration(arm.largest.seconds)),
            )
            for arm in arms
        ),
    )


def estimated(arms: Sequence[ArmEstimate]) -> str:
    """What all the trials would cost together, in a sentence."""
    low, high = (sum(arm.seconds[end] for arm in arms) for end in (0, 1))
    total = _between(numbers.duration(low), numbers.duration(high))
    return f"{_trials(sum(arm.trials for arm in arms))}, {total} in all if one ran after the other on one CPU here"


def retrained(results: Sequence[Trained], task: str) -> Table:
    """What each seed gave at its best validation epoch, then the median over seeds and the quartiles around it."""
    rows: list[tuple[str, ...]] = []
    for each in results:
        scores = (each.best.val_accuracy, each.best.test_accuracy) if each.best else (None, None)
        name = f"{each.seed}" if each.best else f"{each.seed} {each.status}"
        rows.append((name, str(each.best.epoch) if each.best else "-", *(_bare(score, task) for score in scores)))
    bests = [each.best for each in results if each.best]
    if bests:
        both = np.array([(best.val_accuracy, best.test_accuracy) for best in bests])
        lower, median, upper = np.percentile(both, [25, 50, 75], axis=0)
        rows.append(("median", "", *(_bare(float(value), task) for value in median)))
        ends = ([_bare(float(value), task) for value in quartile] for quartile in (lower, upper))
        rows.append(("quartiles", "", *map(_between, *ends)))
    score = _named(task)
    return Table(
        title="Trained again, at the best validation epoch",
        columns=("seed", "epoch", f"validation {score}", f"test {score}"),
        rows=tuple(rows),
    )


def findings(comparison: Comparison) -> list[str]:
    """The comparison in plain sentences, then the notes on what did not count."""
    spreads = [arm for arm in comparison.arms if arm.finished > 2 and not (arm.pruned or arm.dependent)]
    lines = [pair.sentence for pair in comparison.pairs]
    lines += [_reach(reach, comparison.task) for reach in comparison.reaches]
    if comparison.spread_p is not None:
        narrow = min(spreads, key=lambda arm: arm.spread or 0.0)
        verdict = "differ" if comparison.spread_p < 0.05 else "do not differ clearly"
        lines.append(
            f"spreads {verdict} (Brown-Forsythe p {numbers.pvalue(comparison.spread_p)}); "
            f"the smallest is that of {narrow.name}"
        )
    return lines + list(comparison.notes)


def failures(comparison: Comparison) -> list[str]:
    """Trials that gave no network, with the reason, arm by arm."""
    return [f"{arm.name}, {line}" for arm in comparison.arms for line in arm.failures]


def best_arm(comparison: Comparison) -> Arm | None:
    """The arm with the highest median, None when no trial has finished."""
    return max((arm for arm in comparison.arms if arm.median is not None), key=lambda a: a.median or 0.0, default=None)


def _reach(reach: Reach, task: str) -> str:
    target = f"the baselines' best ({numbers.score(reach.target, task)}, {reach.baseline})"
    spent = f"{_trials(reach.baseline_trials)} and {numbers.si(reach.baseline_flops, 'FLOP')}"
    if reach.trials is None:
        return f"{reach.arm}: its expected best does not reach {target}, which took {spent}"
    own = f"{_trials(reach.trials)} and {numbers.si(reach.flops, 'FLOP')}"
    return f"{reach.arm}: its expected best reaches {target} after {own}; {reach.baseline} spent {spent}"


def _trials(n: int) -> str:
    return f"{n} trial" if n == 1 else f"{n} trials"


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} .. {high}"


def _named(task: str) -> str:
    return "R²" if task == "regression" else "accuracy (%)"


def _bare(value: float | None, task: str) -> str:
    return numbers.score(value, task).removesuffix(" %")


def _signed(value: float, task: str) -> str:
    return f"{value:+.3f}" if task == "regression" else f"{100 * value:+.2f}"


def _factor(value: float) -> str:
    return f"x{value:.1f}" if value >= 1 else f"x{value:.2f}"
