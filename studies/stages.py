"""What an arm takes from others that have ended: widths, a learning rate, the knob that gives as many parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from sizer import Epoch, cost
from sizer.errors import InputError
from studies.arms import Range, Taken
from studies.plan import Plan

EMPTY = 1.0
"""Parameters of a network that collapsed, to whoever looks for a knob."""


@dataclass(frozen=True)
class Ended:
    """A trial that gave a network.

    Attributes:
        number: Its number.
        parameters: As Optuna has them.
        best: Its best epoch; of one that collapsed, from before.
        collapsed: Whether its knob would have emptied a layer.
    """

    number: int
    parameters: dict[str, float]
    best: Epoch
    collapsed: bool = False

    @property
    def size(self) -> float:
        """Parameters that its knob leads to: of one that collapsed, next to none."""
        return EMPTY if self.collapsed else float(self.best.parameters)


@dataclass(frozen=True)
class Resolved:
    """What a plan leaves open for an arm until others have ended; None where it does not.

    Attributes:
        widths: Of a baseline, or those that a sizing arm starts from.
        learning_rate: The best of its grid.
        knob: What gives as many parameters as the arm that it is matched with; in that stage, what to try next.
    """

    widths: list[int] | None = None
    learning_rate: float | None = None
    knob: float | None = None


def resolve(
    plan: Plan, arm: str, ended: Callable[[str], Sequence[Ended]], shape: tuple[tuple[int, ...], int]
) -> Resolved:
    """Finds what an arm or a stage takes from others; the same trials give the same.

    Args:
        plan: The evaluation.
        arm: One whose `waits_for` have ended, and, in a stage for the knob, whose own trials so far have.
        ended: Gives an arm's trials that gave a network.
        shape: Of one input, and how many outputs.

    Raises:
        InputError: No trial of an arm that is needed gave a network.
    """
    found = plan.every[arm]

    def needed(name: str) -> list[Ended]:
        rows = sorted(ended(name), key=lambda row: row.number)
        if not rows:
            raise InputError(f"{arm} takes something from {name}, of which no trial gave a network: see `sizer status`")
        return rows

    widths = rate = knob = None
    if isinstance(found.start, list):
        widths = list(found.start)
    elif found.taken is not None:
        rows = best_point(plan, needed(found.taken.mean_of)) if found.taken.mean_of else []
        widths = _widths(plan, found.taken, rows, shape)
    if isinstance(found.learning_rate, list) and found.stage != "learning_rate":
        owner = arm.removesuffix(f".{found.knob_name}") if found.stage else arm
        rate = max(needed(f"{owner}.learning-rate"), key=lambda row: row.best.val_accuracy).parameters["learning_rate"]
    if found.match is not None:
        assert found.knob is not None
        assert found.first_knob is not None
        matched = best_point(plan, needed(found.match))
        target = sum(row.best.parameters for row in matched) / len(matched)
        stage = arm if found.stage else f"{arm}.{found.knob_name}"
        rows = list(ended(arm)) if found.stage else needed(stage)
        tried = [(row.parameters[str(found.knob_name)], row.size) for row in rows]
        knob = next_knob(tried, target, found.knob, found.first_knob) if found.stage else nearest(tried, target)
    return Resolved(widths, rate, knob)


def best_point(plan: Plan, rows: Sequence[Ended]) -> list[Ended]:
    """The trials of the point whose mean validation accuracy is highest; without folds that is one trial."""
    points: dict[int, list[Ended]] = {}
    for row in rows:
        points.setdefault(row.number // (plan.folds or 1), []).append(row)
    return max(points.values(), key=lambda folds: sum(row.best.val_accuracy for row in folds) / len(folds))


def next_knob(tried: Sequence[tuple[float, float]], target: float, bounds: Range, first: float) -> float:
    """What to try next so that a network ends with `target` parameters; they fall as the knob rises.

    In logarithms: a factor of 4 a step until the target lies between two tries, then regula falsi between the nearest
    on both sides, kept off the ends so that noise does not hold it there.

    Args:
        tried: Pairs of knob and parameters.
        target: Parameters.
        bounds: The knob's range, which is not left.
        first: The knob of the first try.
    """
    if not tried:
        return first
    above = max((knob for knob, parameters in tried if parameters > target), default=None)
    below = min((knob for knob, parameters in tried if parameters <= target), default=None)
    if above is None or below is None:
        further = above * 4 if above is not None else (below or first) / 4
        return min(max(further, bounds.low), bounds.high)
    if above >= below:  # noise: they overlap, the middle says most
        return math.sqrt(above * below)
    sizes = dict(tried)
    if sizes[below] <= EMPTY:  # how far beyond the target that is, its size does not say
        return math.sqrt(above * below)
    share = math.log(sizes[above] / target) / math.log(sizes[above] / sizes[below])
    return float(above * (below / above) ** min(max(share, 0.15), 0.85))


def nearest(tried: Sequence[tuple[float, float]], target: float) -> float:
    """The knob whose network came nearest to `target` parameters, by their ratio."""
    return min(tried, key=lambda pair: abs(math.log(pair[1] / target)))[0]


def _widths(plan: Plan, taken: Taken, rows: Sequence[Ended], shape: tuple[tuple[int, ...], int]) -> list[int]:
    layers = list(plan.start_widths())
    if rows:
        widths = [round(sum(row.best.widths[layer] for row in rows) / len(rows)) for layer in layers]
    else:
        widths = list(plan.start_widths().values())
    widths = [max(1, round(width * (1 - taken.cut))) for width in widths]
    return _uniform(plan, layers, widths, shape) if taken.uniform else widths


def _uniform(plan: Plan, layers: list[str], widths: list[int], shape: tuple[tuple[int, ...], int]) -> list[int]:
    """Convolutional layers of one width, the others as they are, with as many parameters as nearly as there are."""
    module = plan.build(*shape, widths)
    target = cost.parameters(module)
    filters = [isinstance(module.get_submodule(layer), nn.modules.conv._ConvNd) for layer in layers]
    same = filters if any(filters) else [True] * len(layers)

    def of(width: int) -> list[int]:
        return [width if alike else own for alike, own in zip(same, widths, strict=True)]

    def parameters(width: int) -> int:
        return cost.parameters(plan.build(*shape, of(width)))

    low, high = 1, max(widths)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if parameters(middle) < target else (low, middle)
    return of(min((max(1, low - 1), low), key=lambda width: abs(parameters(width) - target)))
