"""What a row of the benchmark is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

Side = Callable[[], float]
"""One turn of one side; what it took, in the row's unit."""


class SkippedError(Exception):
    """A row cannot be measured here; says why in a line."""


def over(ours: float, theirs: float) -> float:
    """Our share of what they take: smaller is better."""
    return ours / theirs


def times(ours: float, theirs: float) -> float:
    """How many times theirs ours is faster: larger is better."""
    return theirs / ours


def minus(ours: float, theirs: float) -> float:
    """What ours takes more."""
    return ours - theirs


def own(ours: float, theirs: float) -> float:
    """Ours, whatever theirs."""
    return ours


@dataclass(frozen=True)
class Row:
    """One claim: what is measured, against whom, and the bound that it must keep.

    Attributes:
        name: as on the command line.
        what: a few words for the table: ours / theirs.
        how: what is measured, in full.
        sides: makes them ready: ours, then the opponents, of which the one with the best median counts; none where
            ours alone is bounded, or a figure from elsewhere stands beside it.
        least, most: the bound on the value; neither where a figure is only shown.
        value: of ours and theirs; a ratio unless ``plain``. Ours itself where nobody is against it.
        plain: the value is no ratio, it has the row's unit.
        elsewhere: what was measured of others on another occasion: shown, never divided by.
        names: what the sides are called.
        unit: ``s``, ``CPU-s``, ``bytes``, ``FLOP``, ``%`` or ``trials``.
        pairs: how many turns each side has, at least 5.
        warm: whether each side has one uncounted turn first.
    """

    name: str
    what: str
    how: str
    sides: Callable[[], tuple[Side, ...]]
    least: float | None = None
    most: float | None = None
    value: Callable[[float, float], float] = over
    plain: bool = False
    elsewhere: str = ""
    names: tuple[str, ...] = ("ours", "theirs")
    unit: str = "s"
    pairs: int = 11
    warm: bool = True

    def holds(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


def seeded(*sides: Callable[[int], float]) -> tuple[Side, ...]:
    """Sides whose n-th turns have the same seed, n."""

    def counted(side: Callable[[int], float]) -> Side:
        seeds = count()
        return lambda: float(side(next(seeds)))

    return tuple(counted(side) for side in sides)
