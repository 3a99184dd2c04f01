"""Figures of sizes show each layer of the trials there are, with the widths, rounds and starts that the frames tell."""

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from dashboards import looks, sizing_figures
from studies.compare import finished, ranked
from tests.frames import LAYERS, evaluation, without_result

START = dict.fromkeys(LAYERS, 100)
STARTS = {"shrinknets": dict.fromkeys(LAYERS, 50), "auto-sizing": START}


def pruned(trials: int = 3, epochs: int = 8) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sizing arm whose every trial notes rounds at epochs 4 and 6, and one at 8 of which nothing came yet.

    The round at epoch 6 is retrained in epoch 7 and then taken back.
    """
    rows, history = evaluation(trials=trials, epochs=epochs, arms=["shrinknets"])
    noted = []
    for trial_id in rows["trial_id"]:
        run = history[history["trial_id"] == trial_id].set_index("epoch")
        accepted, rejected = ({"parameters": int(run.parameters[e]), "widths": run.widths[e]} for e in (4, 6))
        noted.append(
            {
                "initial": float(run.val_accuracy[3]),
                "rounds": [
                    {"epoch": 4, "threshold": 0.98, "accepted": True, "score": 0.9, **accepted},
                    {"epoch": 6, "threshold": 0.9, "accepted": False, "score": 0.5, **rejected},
                    {"epoch": 8, "threshold": 0.8, "accepted": None},
                ],
            }
        )
    rows["notes"] = pd.Series([{"activity": each} for each in noted], index=rows.index)
    return rows, history


def panels(figure: go.Figure) -> dict[str, list[Any]]:
    """The traces of each panel, by the title of its y axis."""
    titles = {axis.plotly_name.replace("axis", ""): axis.title.text for axis in figure.select_yaxes()}
    found: dict[str, list[Any]] = {}
    for trace in figure.data:
        found.setdefault(titles[trace.yaxis or "y"], []).append(trace)
    return found


def test_each_trial_is_a_line_over_the_layers_at_its_best_epoch() -> None:
    trials, _ = evaluation(trials=5)
    rows = trials[trials["arm"] == "shrinknets"].sort_values("knob")
    drawn = sizing_figures.sizes_against_knob(trials, "shrinknets").data
    assert [list(trace.x) for trace in drawn] == [list(LAYERS)] * 5
    assert [list(trace.y) for trace in drawn] == [list(widths.values()) for widths in rows["widths"]]


def test_a_line_has_its_knobs_colour_on_the_bar() -> None:
    trials, _ = evaluation(trials=6)
    figure = sizing_figures.sizes_against_knob(trials, "auto-sizing")
    logs = np.sort(np.log10(trials.loc[trials["arm"] == "auto-sizing", "knob"].to_numpy(dtype=float)))
    assert [trace.marker.color[0] for trace in figure.data] == pytest.approx(logs)
    bar = figure.layout.coloraxis
    assert (bar.cmin, bar.cmax) == pytest.approx((logs[0], logs[-1]))
    assert bar.colorbar.title.text == "alpha"
    assert figure.data[0].line.color == bar.colorscale[0][1]
    assert figure.data[-1].line.color == bar.colorscale[-1][1]
    assert len({trace.line.color for trace in figure.data}) > 3


def test_of_many_trials_a_dozen_are_drawn_from_the_smallest_knob_to_the_largest() -> None:
    trials, _ = evaluation(trials=60)
    knobs = np.log10(trials.loc[trials["arm"] == "shrinknets", "knob"].to_numpy(dtype=float))
    drawn = [trace.marker.color[0] for trace in sizing_figures.sizes_against_knob(trials, "shrinknets").data]
    assert 10 <= len(drawn) <= 12
    assert (drawn[0], drawn[-1]) == pytest.approx((knobs.min(), knobs.max()))


def test_trials_of_one_knob_need_no_colour_bar() -> None:
    trials, _ = evaluation(trials=3)
    trials.loc[trials["arm"] == "shrinknets", "knob"] = 1e-3
    figure = sizing_figures.sizes_against_knob(trials, "shrinknets")
    assert len(figure.data) == 3
    assert figure.layout.coloraxis.showscale is False


def test_widths_begin_at_the_start_and_go_over_all_epochs() -> None:
    trials, history = evaluation(trials=2, epochs=4)
    figure = sizing_figures.widths_from_starts(history, trials, STARTS)
    assert [note.text for note in figure.layout.annotations] == ["all layers", *LAYERS]
    run = history[(history["arm"] == "auto-sizing") & (history["number"] == 1)]
    lines = [trace for trace in figure.data if trace.name == "auto-sizing" and "trial 1," in trace.text[0]]
    assert [list(trace.x) for trace in lines] == [[0, 1, 2, 3, 4]] * 4
    assert list(lines[0].y) == [300, *(sum(widths.values()) for widths in run["widths"])]
    for trace, layer in zip(lines[1:], LAYERS, strict=True):
        assert list(trace.y) == [100, *(widths[layer] for widths in run["widths"])]
    assert [trace.yaxis for trace in lines] == ["y", "y2", "y3", "y4"]


def test_every_arm_has_its_colour_and_one_line_in_the_legend() -> None:
    trials, history = evaluation(trials=3, epochs=3)
    figure = sizing_figures.widths_from_starts(history, trials, STARTS)
    assert len(figure.data) == 2 * 3 * 4
    colour = looks.colours(trials["arm"])
    assert {(trace.name, trace.line.color) for trace in figure.data} == {(arm, colour[arm]) for arm in STARTS}
    assert [trace.name for trace in figure.data if trace.showlegend] == list(STARTS)


def test_a_deep_network_shows_layers_from_the_first_to_the_last() -> None:
    trials, history = evaluation(trials=1, epochs=2)
    deep = [f"conv{i}" for i in range(1, 21)]
    history["widths"] = pd.Series([dict.fromkeys(deep, 7)] * len(history))
    figure = sizing_figures.widths_from_starts(history, trials, {"shrinknets": dict.fromkeys(deep, 9)})
    titles = [note.text for note in figure.layout.annotations]
    assert len(titles) == 8
    assert (titles[0], titles[1], titles[-1]) == ("all layers", "conv1", "conv20")
    assert list(figure.data[0].y) == [180, 140, 140]


def test_rounds_show_size_threshold_and_score_after_each() -> None:
    trials, history = pruned()
    drawn = panels(sizing_figures.rounds(trials, history, "shrinknets"))
    assert list(drawn) == ["Parameters", "FLOPs", "Threshold", "Validation<br> accuracy (%), log error"]
    row = trials.sort_values("knob").iloc[0]
    run = history[history["trial_id"] == row["trial_id"]].set_index("epoch")
    parameters, flops, thresholds, _ = (lines[0] for lines in drawn.values())
    assert list(parameters.x) == [0, 1, 2, 3]
    assert list(parameters.y) == [run.parameters[epoch] for epoch in (3, 4, 6, 8)]
    assert list(flops.y) == [run.flops[epoch] for epoch in (3, 4, 6, 8)]
    assert list(thresholds.y) == [None, 0.98, 0.9, 0.8]
    assert all(len(lines) == 3 for lines in drawn.values())


def test_the_score_of_a_round_is_the_noted_one() -> None:
    trials, history = pruned(trials=1)
    trials["notes"].iloc[0]["activity"] |= {"initial": 0.92}
    trials["notes"].iloc[0]["activity"]["rounds"][1]["score"] = 0.88
    drawn = panels(sizing_figures.rounds(trials, history, "shrinknets"))
    assert list(drawn["Validation<br> accuracy (%)"][0].y) == pytest.approx([92, 90, 88, None], nan_ok=True)


def test_rounds_taken_back_and_rounds_not_decided_are_told_apart() -> None:
    trials, history = pruned(trials=1)
    line = sizing_figures.rounds(trials, history, "shrinknets").data[0]
    assert list(line.marker.symbol) == ["circle", "circle", "x", "circle-open"]
    words = (
        "before<br>",
        "round 1, epoch 4: accepted",
        "round 2, epoch 6: taken back",
        "round 3, epoch 8: not decided",
    )
    assert all(word in text for word, text in zip(words, line.text, strict=True))
    assert "taken back<br>threshold 0.9<br>" in line.text[2]


def test_flops_are_missing_where_no_epoch_trained_the_widths_of_a_round() -> None:
    trials, history = pruned(trials=1)
    trials["notes"].iloc[0]["activity"]["rounds"][1] |= {"widths": dict.fromkeys(LAYERS, 3), "parameters": 77}
    drawn = panels(sizing_figures.rounds(trials, history, "shrinknets"))
    assert drawn["Parameters"][0].y[2] == 77
    assert drawn["FLOPs"][0].y[2] is None


def test_rounds_that_add_units_have_no_threshold() -> None:
    trials, history = pruned(trials=1)
    for told in trials["notes"].iloc[0]["activity"]["rounds"]:
        told["share"] = told.pop("threshold")
    assert "Threshold" not in panels(sizing_figures.rounds(trials, history, "shrinknets"))


def test_trials_without_notes_have_no_rounds() -> None:
    trials, history = evaluation(trials=2)
    assert sizing_figures.with_rounds(trials, "shrinknets").empty
    trials["notes"] = [{}, {"activity": {"rounds": []}}] * 4
    assert sizing_figures.with_rounds(trials, "shrinknets").empty
    assert not sizing_figures.rounds(trials, history, "shrinknets").data


def test_reduction_is_that_of_the_trial_that_validation_chooses() -> None:
    trials, _ = evaluation(trials=5)
    figure = sizing_figures.reduction_per_layer(trials, STARTS)
    assert [bar.name for bar in figure.data] == list(STARTS)
    assert [bar.marker.color for bar in figure.data] == list(looks.PALETTE[:2])
    for bar, (arm, start) in zip(figure.data, STARTS.items(), strict=True):
        best = ranked(finished(trials[trials["arm"] == arm])).iloc[0]["widths"]
        assert list(bar.x) == [*LAYERS, "all layers"]
        gone = [100 * (1 - best[layer] / start[layer]) for layer in LAYERS]
        assert list(bar.y) == pytest.approx([*gone, sum(gone) / len(gone)])


def test_a_layer_that_grew_lies_below_zero() -> None:
    trials, _ = evaluation(trials=1)
    trials.at[0, "widths"] = dict(zip(LAYERS, (50, 150, 100), strict=True))
    bar = sizing_figures.reduction_per_layer(trials, {"shrinknets": START}).data[0]
    assert list(bar.y) == [50, -50, 0, 0]
    assert bar.text[1].endswith("dense2: 100 units to 150")


def test_every_axis_says_what_it_is_or_stands_above_one_that_does() -> None:
    trials, history = pruned()
    both, epochs = evaluation(trials=2, epochs=3)
    for figure, unnamed in (
        (sizing_figures.sizes_against_knob(both, "shrinknets"), set()),
        (sizing_figures.reduction_per_layer(both, STARTS), set()),
        (sizing_figures.rounds(trials, history, "shrinknets"), {"xaxis", "xaxis2", "xaxis3"}),
        (sizing_figures.widths_from_starts(epochs, both, STARTS), {"xaxis", "xaxis2", "yaxis2", "yaxis4"}),
    ):
        axes = [*figure.select_xaxes(), *figure.select_yaxes()]
        assert {axis.plotly_name for axis in axes if not axis.title.text} == unnamed


def test_names_cannot_bring_markup_and_the_same_data_gives_the_same_figures() -> None:
    def made() -> list[str]:
        trials, history = pruned()
        for frame in (trials, history):
            frame["arm"] = "<img>"
            frame["widths"] = [{f"<b>{layer}": width for layer, width in widths.items()} for widths in frame["widths"]]
        start = {"<img>": {f"<b>{layer}": 200 for layer in LAYERS}}
        drawn = (
            sizing_figures.sizes_against_knob(trials, "<img>"),
            sizing_figures.widths_from_starts(history, trials, start),
            sizing_figures.rounds(trials, history, "<img>"),
            sizing_figures.reduction_per_layer(trials, start),
        )
        return [json.dumps(json.loads(figure.to_json()), ensure_ascii=False) for figure in drawn]

    assert made() == made()
    assert all("<b>dense" not in text for text in made())
    assert all("<img" not in text.replace('"legendgroup": "<img>"', "") for text in made())


def test_an_arm_without_results_gives_empty_figures() -> None:
    trials, history = evaluation(trials=1, arms=["shrinknets"])
    trials = without_result(trials, "shrinknets", 0, "RUNNING", "", "")
    none, start = history.iloc[:0], {"shrinknets": START}
    assert not sizing_figures.sizes_against_knob(trials, "shrinknets").data
    assert not sizing_figures.widths_from_starts(none, trials, start).data
    assert not sizing_figures.reduction_per_layer(trials, start).data
