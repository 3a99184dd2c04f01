"""What may be chosen under some limit: it is all that best and front ever give, whatever came before or comes after."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from sizer.history import best_epoch, choices, front


@dataclass(frozen=True)
class Point:
    """As much of an epoch as matters; few values, so that many are equal."""

    val_accuracy: float
    parameters: int
    flops: int
    epoch: int = 0


small = st.integers(0, 5)
histories = st.lists(
    st.builds(Point, st.sampled_from([0.1, 0.2, 0.3, 0.4]), small, small), min_size=1, max_size=25
).map(lambda points: [replace(point, epoch=at) for at, point in enumerate(points, 1)])


@given(histories, small, small)
def test_the_best_under_any_limits_is_a_choice(history: list[Point], parameters: int, flops: int) -> None:
    fits = [point for point in history if point.parameters <= parameters and point.flops <= flops]
    if fits:
        assert best_epoch(fits) in choices(history)


@given(histories)
def test_the_front_is_among_the_choices_and_theirs(history: list[Point]) -> None:
    chosen = choices(history)
    assert front(chosen) == front(history)
    assert [point for point in history if point in chosen] == chosen


@given(histories)
def test_every_choice_is_needed(history: list[Point]) -> None:
    """Each is on the front, or the best within limits that it fits itself."""
    on_front = front(history)
    for point in choices(history):
        fits = [each for each in history if each.parameters <= point.parameters and each.flops <= point.flops]
        assert point in on_front or best_epoch(fits) == point


@given(histories, st.integers(0, 25))
def test_what_was_no_choice_becomes_none_later(history: list[Point], at: int) -> None:
    assert choices([*choices(history[:at]), *history[at:]]) == choices(history)
