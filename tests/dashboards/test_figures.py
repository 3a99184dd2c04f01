"""Figures show every trial that counts, in one colour an arm, with readable axes."""

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dashboards import figures, looks, scales
from studies.compare import compare
from tests.frames import ARMS, evaluation, without_result


def all_figures(trials: pd.DataFrame, history: pd.DataFrame, task: str = "classification") -> dict[str, go.Figure]:
    comparison = compare(trials, history, task=task)
    front = history.merge(trials[["trial_id", "knob_name", "status"]], on="trial_id").nlargest(3, "val_accuracy")
    return {
        "boxes": figures.distribution(trials, task),
        "trials": figures.expected_best(comparison, "trials"),
        "flops": figures.expected_best(comparison, "flops"),
        "size": figures.size_against_accuracy(trials, front, task),
        "convergence": figures.convergence(history, "shrinknets", "lambda"),
        "knob": figures.knob_effect(trials, "shrinknets", task),
    }


def points(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.type == "scatter"}


def test_every_trial_that_counts_is_a_point_of_the_boxes() -> None:
    trials, _ = evaluation(trials=7)
    trials = without_result(trials, "fixed", 2, "FAIL", "error", "out of memory")
    drawn = points(figures.distribution(trials))
    assert {arm: len(trace.x) for arm, trace in drawn.items()} == {**dict.fromkeys(ARMS, 7), "fixed": 6}
    own = trials.loc[trials["arm"] == "shrinknets", "test_accuracy"]
    assert sorted(drawn["shrinknets"].x) == pytest.approx(sorted(100 * own))


def test_a_box_is_the_quartiles_that_the_comparison_tells() -> None:
    trials, history = evaluation(trials=8)
    arm = compare(trials, history).arms[0]
    box = next(trace for trace in figures.distribution(trials).data if trace.type == "box")
    drawn = [box.lowerfence[0], box.q1[0], box.median[0], box.q3[0], box.upperfence[0]]
    told = [arm.worst, arm.lower, arm.median, arm.upper, arm.best]
    assert drawn == pytest.approx([100 * (value or 0) for value in told])


def test_an_arm_has_the_same_colour_in_every_figure() -> None:
    made = all_figures(*evaluation(trials=5))
    colour = looks.colours(ARMS)
    assert list(colour.values()) == ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]
    for name in ("boxes", "trials", "flops", "size"):
        drawn = points(made[name])
        assert {arm: drawn[arm].marker.color for arm in ARMS} == colour, name
    assert {trace.marker.color for trace in made["knob"].data} == {colour["shrinknets"]}


def test_of_many_arms_pruned_trials_have_open_marks() -> None:
    trials, _ = evaluation(trials=4)
    many = pd.concat([trials.assign(arm=trials["arm"] + f"-{at}") for at in range(8)], ignore_index=True)
    assert many["arm"].nunique() > figures.MANY
    cut = many["number"] == 1
    many = many.assign(state=many["state"].where(~cut, "PRUNED"), status=many["status"].where(~cut, "pruned"))
    marks = [trace for trace in figures.distribution(many).data if trace.type == "scatter"]
    drawn: dict[bool, list[str]] = {True: [], False: []}
    for trace in marks:
        drawn[trace.marker.symbol.endswith("-open")] += list(trace.text)
    assert (len(drawn[True]), len(drawn[False])) == (cut.sum(), (~cut).sum())
    assert all(", pruned" in text for text in drawn[True])


def test_no_two_arms_of_a_dozen_look_alike() -> None:
    trials, _ = evaluation(trials=4)
    dozen = pd.concat([trials.assign(arm=trials["arm"] + f"-{at}") for at in range(3)], ignore_index=True)
    drawn = points(figures.size_against_accuracy(dozen, dozen.iloc[:0]))
    looks_of = {(trace.marker.color, trace.marker.symbol) for trace in drawn.values()}
    assert len(looks_of) == dozen["arm"].nunique() == 3 * len(ARMS)


def test_every_axis_has_a_title() -> None:
    for name, figure in all_figures(*evaluation(trials=4)).items():
        layout = figure.to_dict()["layout"]
        titles = {axis: layout[axis].get("title", {}).get("text") for axis in layout if axis[1:5] == "axis"}
        # Of figures that stand above one another only the lowest says what x is; the boxes' y axis has the arms' names.
        unnamed = {axis for axis, title in titles.items() if not title}
        assert unnamed == {"boxes": {"yaxis"}, "convergence": {"xaxis"}, "knob": {"xaxis"}}.get(name, set())


def test_the_cost_of_the_expected_best_is_counted_in_flops() -> None:
    comparison = compare(*evaluation(trials=6))
    arm = comparison.arms[0]
    drawn = points(figures.expected_best(comparison, "flops"))["shrinknets"]
    assert list(drawn.x) == pytest.approx([n * (arm.cost or 0) for n in range(1, 7)])
    assert list(drawn.y) == pytest.approx([100 * value for value in arm.expected])


def test_trials_that_depend_on_each_other_have_no_box_and_one_expected_best() -> None:
    trials, history = evaluation(trials=6)
    comparison = compare(trials, history, dependent={"shrinknets": "are the steps of a path"})
    assert len(points(figures.expected_best(comparison, "flops"))["shrinknets"].x) == 1
    boxes = [len([t for t in figures.distribution(trials, dependent=arms).data if t.type == "box"])
             for arms in ([], ["shrinknets"])]  # fmt: skip
    assert boxes[0] - boxes[1] == 1


def test_hovering_a_trial_tells_its_widths_and_its_knob() -> None:
    trials, _ = evaluation(trials=3)
    row = trials.iloc[0]
    label = points(figures.distribution(trials))["shrinknets"].text
    shown = next(text for text in label if f"trial {row['number']}," in text)
    assert f"dense1 {row['widths']['dense1']}" in shown
    assert "lambda" in shown
    assert f"{row['parameters']:,} parameters" in shown


def test_the_widths_of_a_deep_network_are_cut_in_the_middle() -> None:
    trials, _ = evaluation(trials=1, arms=["fixed"])
    trials["widths"] = pd.Series([{f"conv{i}": i for i in range(1, 31)}])
    label = points(figures.distribution(trials))["fixed"].text[0]
    assert "conv1 1, conv2 2, conv3 3, ... (24 more), conv28 28" in label


def test_convergence_shows_knobs_across_the_whole_range() -> None:
    _, history = evaluation(trials=40)
    knobs = history.loc[history["arm"] == "shrinknets", "knob"]
    figure = figures.convergence(history, "shrinknets", "lambda", curves=5)
    named = [float(trace.name) for trace in figure.data if trace.showlegend is not False]
    assert len(named) == 5
    assert named[0] == pytest.approx(knobs.min(), rel=0.01)
    assert named[-1] == pytest.approx(knobs.max(), rel=0.01)
    assert np.all(np.diff(np.log10(named)) < 1.3)
    assert len(figure.data) == 10


def test_convergence_tells_trials_of_one_knob_apart() -> None:
    _, history = evaluation(trials=3)
    alike = history.assign(knob=history["knob"].where(history["arm"] != "shrinknets", 2e-3))
    names = [trace.name for trace in figures.convergence(alike, "shrinknets", "lambda").data[::2]]
    assert names == [f"2.00e-3 (trial {number})" for number in range(3)]


def test_convergence_counts_the_units_of_all_layers() -> None:
    _, history = evaluation(trials=1, epochs=3)
    run = history[history["arm"] == "shrinknets"]
    figure = figures.convergence(history, "shrinknets", "lambda")
    assert list(figure.data[0].y) == [sum(widths.values()) for widths in run["widths"]]
    assert list(figure.data[1].y) == list(run["val_loss"])


def test_a_regression_shows_r_squared_as_it_is() -> None:
    trials, history = evaluation(trials=3)
    made = all_figures(trials, history, task="regression")
    assert made["boxes"].layout.xaxis.title.text == "Test R²"
    assert max(points(made["boxes"])["shrinknets"].x) < 1


def test_names_from_a_plan_cannot_bring_markup_into_a_figure() -> None:
    trials, _ = evaluation(trials=2, arms=["fixed"])
    trials["arm"] = "<img src=x>"
    text = json.dumps(figures.distribution(trials).to_plotly_json(), default=str)
    assert "<img" not in text


def test_an_evaluation_without_results_gives_empty_figures() -> None:
    trials, history = evaluation(trials=1, arms=["shrinknets"])
    trials = without_result(trials, "shrinknets", 0, "RUNNING", "", "")
    for figure in all_figures(trials, history.iloc[:0]).values():
        assert not [trace for trace in figure.data if len(trace.x) and trace.name != "front"]


def test_the_same_data_gives_the_same_figure() -> None:
    first, second = (all_figures(*evaluation(trials=6)) for _ in range(2))
    assert {name: figure.to_json() for name, figure in first.items()} == {
        name: figure.to_json() for name, figure in second.items()
    }


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([430, 480], {"type": "linear", "nticks": 6}), ([220442], {"type": "linear", "dtick": 1}),
        ([3, 4, 8], {"type": "linear", "dtick": 1}), ([0.5, 1.4], {"type": "linear", "nticks": 6}),
        ([10, 40], {"type": "log", "dtick": "D1"}), ([10, 900], {"type": "log", "dtick": "D2"}),
        ([10, 9000], {"type": "log", "dtick": 1}), ([], {"type": "linear", "dtick": 1}),
    ],
)  # fmt: skip
def test_an_axis_of_positive_values_has_labels_whatever_their_range(sizes: list[float], wanted: dict[str, Any]) -> None:
    axis = scales.positive_axis(sizes)
    assert {key: axis.get(key) for key in wanted} == wanted


def test_of_many_arms_points_of_a_colour_are_one_trace_and_none_is_missing() -> None:
    trials, _ = evaluation(trials=4)
    many = pd.concat([trials.assign(arm=trials["arm"] + f"-{at}") for at in range(8)], ignore_index=True)
    assert many["arm"].nunique() > figures.MANY
    marks = [trace for trace in figures.distribution(many).data if trace.type == "scatter"]
    assert len(marks) == len(looks.PALETTE)
    assert sum(len(trace.x) for trace in marks) == len(many)
    texts = [text for trace in marks for text in trace.text]
    assert {text.partition("</b>")[0] for text in texts} == {f"<b>{arm}" for arm in many["arm"]}
