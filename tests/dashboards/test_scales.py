"""Scores that lie close together are drawn as they are, those far apart by the logarithm of their error."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.scales import ScoreAxis


def test_scores_close_together_are_percent() -> None:
    axis = ScoreAxis.of([0.95, 0.98], "classification")
    assert axis.place([0.95, 0.98]) == [95.0, 98.0]
    assert axis.layout("Test") == {"title": {"text": "Test accuracy (%)"}}


def test_scores_far_apart_have_ticks_in_percent_where_they_belong() -> None:
    axis = ScoreAxis.of([0.47, 0.98], "classification")
    layout = axis.layout("Test")
    assert layout["ticktext"] == ["98", "95", "90", "80", "50"]
    assert layout["tickvals"] == pytest.approx(axis.place(float(text) / 100 for text in layout["ticktext"]))
    assert "log error" in layout["title"]["text"]


@given(st.lists(st.floats(-3, 1), min_size=2, max_size=20))
def test_a_better_score_never_stands_before_a_worse_one(scores: list[float]) -> None:
    ordered = sorted(scores)
    for task in ("classification", "regression"):
        places = ScoreAxis.of(scores, task).place(ordered)
        assert places == sorted(places)
        assert all(map(math.isfinite, places))


def test_a_perfect_score_and_no_score_have_a_place() -> None:
    assert ScoreAxis.of([1.0, 0.2], "classification").place([1.0]) == [4.0]
    assert ScoreAxis.of([], "regression").layout("Test") == {"title": {"text": "Test R²"}}
