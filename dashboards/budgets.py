"""What searches come to for the same FLOPs of training, over seeds, as lines of Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from dashboards import numbers
from dashboards.facts import facts
from dashboards.tables import Table, markdown
from studies.claims import Evaluated
from studies.spending import Spending, Spread

AGAINST = "random"
"""The arm that others are compared with, where there is one; else the first."""
LIMITS = {
    "parameters": (3_000, 10_000, 30_000, 100_000, 300_000),
    "flops": (30_000, 100_000, 300_000, 1_000_000, 3_000_000),
}
SHARES = (0.5, 1.0)
"""Of the FLOPs that an arm may spend: it is told what it costs others to be as good as `AGAINST` is with so many."""


def spending(found: Sequence[Evaluated], commands: Sequence[str]) -> list[str]:
    """The arms of evaluations that differ in their seed alone, a section for each such group.

    Args:
        found: The evaluations.
        commands: What repeats each.
    """
    groups: dict[str, list[tuple[Evaluated, str]]] = {}
    for each, command in zip(found, commands, strict=True):
        alike = {key: value for key, value in each.spec.items() if key not in ("name", "seed")}
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append((each, command))
    return [line for group in groups.values() for line in _group(*zip(*group, strict=True))]


def _group(found: Sequence[Evaluated], commands: Sequence[str]) -> list[str]:
    first = found[0]
    told, task = facts(first.spec, first.data), first.data["task"]
    spent = Spending.of([(each.trials, each.history) for each in found], float(first.spec["max_training_flops"]))
    against = AGAINST if AGAINST in spent.arms else next(iter(spent.arms), "")
    lines = [f"### {first.spec['data']}, {first.spec['network']}", "", *(f"    {command}" for command in commands), ""]
    lines += [f"{told['data']}; {told['network']}; {told['training']}.", ""]
    lines += [f"- {arm}: {told[arm]}" for arm in spent.arms]
    lines += [f"- Not equal: {told['not equal']}."] if "not equal" in told else []
    left_out = [arm for arm in dict.fromkeys(first.trials["arm"]) if arm not in spent.arms]
    lines += [*([f"- without a network in one of the seeds: {', '.join(left_out)}"] if left_out else []), ""]
    if not spent.arms:
        return lines
    lines += markdown(_whole(spent, against, len(found), task))
    for size, name in (("parameters", "parameters"), ("flops", "FLOPs a sample")):
        lines += markdown(_limited(spent, size, name, task))
    return lines + markdown(_until(spent, against, task))


def _whole(spent: Spending, against: str, seeds: int, task: str) -> Table:
    base, rows = spent.chosen(against, "test_accuracy"), []
    for arm, searches in spent.arms.items():
        test = spent.chosen(arm, "test_accuracy")
        differences = [
            own - other if math.isfinite(other) else -math.inf for own, other in zip(test, base, strict=True)
        ]
        trials = Spread.over([float(len(seed.trials)) for seed in searches])
        rows.append((
            arm, f"{trials.median:.0f}", _score(Spread.over(test), task),
            "" if arm == against else _points(Spread.over(differences), task),
            *(numbers.count(Spread.over(spent.chosen(arm, size)).median) for size in ("parameters", "flops")),
        ))  # fmt: skip
    title = (
        f"With {numbers.si(spent.flops, 'FLOP')} of training each: the test {numbers.score_name(task)} of what"
        f" validation chooses, {'of one seed' if seeds == 1 else f'median and range of {seeds} seeds'}"
    )
    columns = ("arm", "trials", "test", f"less {against}'s, seed by seed", "parameters", "FLOPs a sample")
    return Table(title, columns, tuple(rows))


def _limited(spent: Spending, size: str, name: str, task: str) -> Table:
    sizes = [seed.history[size].max() for each in spent.arms.values() for seed in each if len(seed.history)]
    largest = max(map(float, sizes), default=0.0)
    fits = {
        limit: sum(math.isfinite(Spread.over(spent.chosen(arm, size, **{size: limit})).median) for arm in spent.arms)
        for limit in LIMITS[size]
    }
    limits = [limit for limit, arms in fits.items() if limit < largest and arms > 1]
    rows = [
        (
            arm,
            *(
                _score(Spread.over(spent.chosen(arm, "test_accuracy", **{size: limit})), task, short=True)
                for limit in limits
            ),
        )
        for arm in spent.arms
    ]
    title = f"The same of networks of at most so many {name}: medians"
    return Table(title, ("arm", *(numbers.count(limit) for limit in limits)), tuple(rows))


def _until(spent: Spending, against: str, task: str) -> Table:
    """What it costs to be as good as one arm, in the FLOPs that every arm may spend."""
    rows = [
        (arm, *(_cost(Spread.over(spent.until_as_good(arm, against, share))) for share in SHARES)) for arm in spent.arms
    ]
    shares = [f"with {100 * share:.0f} %" for share in SHARES]
    title = (
        f"Training FLOPs, in percent of these, until validation {numbers.score_name(task)} is what {against} has"
        " of the same seed: median, and range of the seeds that get there"
    )
    return Table(title, ("arm", *shares), tuple(rows))


def _cost(cost: Spread) -> str:
    middle = "-" if math.isnan(cost.median) else f"{100 * cost.median:.0f}"
    if cost.of == 0:
        return f"{middle} (no seed)"
    if cost.of == 1:
        return f"{middle} (1 seed)" if math.isfinite(cost.median) else f"{middle} ({100 * cost.low:.0f}, 1 seed)"
    return f"{middle} ({100 * cost.low:.0f} to {100 * cost.high:.0f}, {cost.of} seeds)"


def _score(spread: Spread, task: str, *, short: bool = False) -> str:
    if math.isnan(spread.median):
        return "-"
    middle, low, high = (
        numbers.score(value, task).removesuffix(" %") for value in (spread.median, spread.low, spread.high)
    )
    return middle if short or spread.of == 1 else f"{middle} ({low} to {high})"


def _points(spread: Spread, task: str) -> str:
    if math.isnan(spread.median):
        return "-"
    scale, digits = (1, 3) if task == "regression" else (100, 2)
    middle, low, high = (f"{scale * value:+.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return middle if spread.of == 1 else f"{middle} ({low} to {high})"
