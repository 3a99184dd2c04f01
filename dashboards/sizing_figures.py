"""Figures of how networks find their size, layer by layer: data frame in, plotly Figure out, as in `figures`.

`starts` says, arm -> layer -> width, what the networks of a sizing arm began with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import numbers
from dashboards.figures import across_knob
from dashboards.looks import DASHES, LIGHT, colours, knob_colour
from dashboards.scales import ScoreAxis, few_epochs, positive_axis
from studies.compare import finished, ranked

ALL = "all layers"
PANELS = 8
LINES = 12
ROUND_MARKERS = {True: "circle", False: "x", None: "circle-open"}
ROUND_WORDS = {True: "accepted", False: "taken back", None: "not decided"}


def sizes_against_knob(trials: pd.DataFrame, arm: str, curves: int = 12) -> go.Figure:
    """DAS, Figure 1: width of every layer at the best epoch, a line a trial, coloured by its knob.

    Layers stand along x, so that it reads alike for 2 layers and for 20: a line a layer against the knob would need as
    many colours as there are layers. Of many trials `curves` are drawn, spread over the knob's range.
    """
    rows = _of_arm(finished(trials), arm)
    rows = rows[rows["trial_id"].isin(across_knob(rows, curves))].sort_values(["knob", "number"])
    name = str(rows["knob_name"].iloc[0]) if len(rows) else "knob"
    logs = [math.log10(knob) for knob in rows["knob"]]
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    figure = go.Figure()
    for place, row in zip(logs, rows.to_dict("records"), strict=True):
        colour = knob_colour((place - low) / (high - low) if high > low else 0.5)
        knob = f"{escape(name)} = {numbers.knob(row['knob'])}"
        figure.add_trace(
            go.Scatter(
                name=knob,
                x=[escape(layer) for layer in row["widths"]],
                y=list(row["widths"].values()),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"size": 7, "color": [place] * len(row["widths"]), "coloraxis": "coloraxis"},
                text=[
                    f"<b>{knob}</b> (trial {row['number']}, epoch {row['epoch']})<br>{escape(layer)}: "
                    f"{numbers.count(width)} units"
                    for layer, width in row["widths"].items()
                ],
                hoverinfo="text",
            )
        )
    figure.update_layout(template=LIGHT, height=420, showlegend=False, coloraxis=_knob_axis(name, low, high))
    figure.update_xaxes(title_text="Layer", showgrid=False)
    figure.update_yaxes(
        positive_axis(width for widths in rows["widths"] for width in widths.values()), title_text="Units"
    )
    return figure


def widths_over_epochs(run: pd.DataFrame, start: Mapping[str, int] | None = None) -> go.Figure:
    """Units of each layer of one trial after each epoch, a line a layer; of a deep network, of some from first to last.

    Args:
        run: the epochs of the trial, in order.
        start: layer -> units before the first epoch, drawn at 0, where that is known.
    """
    layers = list(run["widths"].iloc[0])
    known = start is not None and set(start) == set(layers)
    epochs = [*([0] if known else []), *run["epoch"].astype(int)]
    each = [*([start] if known else []), *run["widths"]]
    shown = _spread(layers, LINES)
    figure = go.Figure()
    for place, layer in enumerate(shown):
        widths = [_units(found, layer) for found in each if found is not None]
        colour = knob_colour(place / max(1, len(shown) - 1))
        figure.add_trace(
            go.Scatter(
                name=escape(layer),
                x=epochs,
                y=widths,
                mode="lines+markers" if len(epochs) < 40 else "lines",
                line={"color": colour, "width": 2, "dash": DASHES[place % len(DASHES)], "shape": "hv"},
                marker={"size": 5},
                text=[
                    f"<b>{escape(layer)}</b>, {f'epoch {epoch}' if epoch else 'start'}: {numbers.count(width)} units"
                    for epoch, width in zip(epochs, widths, strict=True)
                ],
                hoverinfo="text",
            )
        )
    figure.update_layout(template=LIGHT, height=380, showlegend=True)
    figure.update_xaxes(few_epochs(epochs), title_text="Epoch")
    figure.update_yaxes(positive_axis(width for found in each if found for width in found.values()), title_text="Units")
    return figure


def widths_from_starts(
    history: pd.DataFrame, trials: pd.DataFrame, starts: Mapping[str, Mapping[str, int]], curves: int = 5
) -> go.Figure:
    """DAS, Figure 2: widths over epochs for arms that start from different widths, a line a trial, coloured by arm.

    A panel for all layers together and one for each layer; of a deep network for layers from the first to the last, as
    many as `PANELS` holds. Epoch 0 is the start. Of an arm's trials `curves` are drawn, spread over its knob's range.
    """
    colour = colours(trials["arm"])
    knob_names = dict(zip(trials["arm"], trials["knob_name"], strict=True))
    layers = list(next(iter(starts.values()), {}))
    shown = [ALL, *_spread(layers, PANELS - 1)] if len(layers) > 1 else layers
    rows = max(1, math.ceil(len(shown) / 2))
    titles = [escape(layer) for layer in shown]
    figure = make_subplots(
        rows=rows,
        cols=2,
        shared_xaxes=True,
        subplot_titles=titles,
        vertical_spacing=0.16 / rows,
        horizontal_spacing=0.1,
    )
    seen: dict[str, list[int]] = {layer: [] for layer in shown}
    for arm, start in starts.items():
        own = history[(history["arm"] == arm) & history["knob"].notna()]
        for at, trial_id in enumerate(across_knob(own, curves)):
            run = own[own["trial_id"] == trial_id].sort_values("epoch")
            for place, layer in enumerate(shown):
                widths = [_units(each, layer) for each in (start, *run["widths"])]
                seen[layer] += widths
                style = {"color": colour[arm], "width": 2, "dash": DASHES[list(starts).index(arm) % len(DASHES)]}
                line = _over_epochs(run, knob_names[arm], layer, widths, style)
                figure.add_trace(line.update(showlegend=at == place == 0), row=place // 2 + 1, col=place % 2 + 1)
    figure.update_layout(template=LIGHT, height=100 + 165 * rows, legend_y=1 + 0.13 / rows)
    figure.update_annotations(font_size=13)
    for place, layer in enumerate(shown):
        row, column = divmod(place, 2)
        figure.update_yaxes(_sparse(positive_axis(seen[layer])), row=row + 1, col=column + 1)
        if place >= len(shown) - 2:
            figure.update_xaxes(title_text="Epoch", showticklabels=True, row=row + 1, col=column + 1)
        if column == 0:
            figure.update_yaxes(title_text="Units", row=row + 1, col=1)
    return figure


def with_rounds(trials: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The finished trials of an arm that noted rounds in which units went or came (`activity`)."""
    if "notes" not in trials:
        return trials.iloc[:0]
    rows = _of_arm(finished(trials), arm)
    return rows[[bool(_noted(notes).get("rounds")) for notes in rows["notes"]]]


def rounds(
    trials: pd.DataFrame, history: pd.DataFrame, arm: str, task: str = "classification", curves: int = 5
) -> go.Figure:
    """DARN, Figures 1-5: parameters, FLOPs, threshold and validation score at each round, for up to `curves` trials.

    Round 0 is the network before the first. A round that was taken back is a cross. FLOPs are those of an epoch that
    trained the round's widths; where there is none, the point is missing.
    """
    rows = with_rounds(trials, arm)
    rows = rows[rows["trial_id"].isin(across_knob(rows, curves))].sort_values(["knob", "number"])
    told = [
        (row, _steps(_noted(row["notes"]), history[history["trial_id"] == row["trial_id"]].sort_values("epoch")))
        for row in rows.to_dict("records")
    ]
    every = [step for _, steps in told for step in steps]
    axis = ScoreAxis.of((step["score"] for step in every if step["score"] is not None), task)
    panels = {"parameters": "Parameters", "flops": "FLOPs", "threshold": "Threshold", "score": "Validation<br>"}
    if not any(step["threshold"] is not None for step in every):
        del panels["threshold"]
    heights = [1.35 if key == "score" else 1.0 for key in panels]
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.035, row_heights=heights)
    for place, (row, steps) in enumerate(told):
        style = {"color": knob_colour(place / max(1, len(told) - 1)), "dash": DASHES[place % len(DASHES)], "width": 2}
        for panel, key in enumerate(panels):
            values = [step[key] for step in steps]
            if key == "score":
                values = [None if value is None else axis.place([value])[0] for value in values]
            figure.add_trace(_round_line(row, steps, values, style, task, legend=panel == 0), row=panel + 1, col=1)
    figure.update_layout(template=LIGHT, height=150 + 150 * len(panels))
    figure.update_layout(legend_title_text=f"{escape(str(rows['knob_name'].iloc[0]))} =" if len(rows) else "")
    for panel, (key, title) in enumerate(panels.items()):
        shape = axis.layout(title) if key == "score" else {"title": {"text": title}}
        shape |= {"tickformat": "~s"} if key in ("parameters", "flops") else {}
        figure.update_yaxes(shape, row=panel + 1, col=1)
    most = max((len(steps) for _, steps in told), default=1) - 1
    figure.update_xaxes(dtick=max(1, math.ceil(most / 12)), range=[-0.3, most + 0.3])
    figure.update_xaxes(title_text="Round", row=len(panels), col=1)
    return figure


def reduction_per_layer(trials: pd.DataFrame, starts: Mapping[str, Mapping[str, int]]) -> go.Figure:
    """Share of each layer's starting units that is gone in the trial that validation chooses, bars grouped by arm.

    A layer that ends wider than it started has a bar below 0.
    """
    colour, done = colours(trials["arm"]), finished(trials)
    figure = go.Figure()
    for arm, start in starts.items():
        rows = ranked(done[done["arm"] == arm])
        if rows.empty:
            continue
        best: dict[Any, Any] = rows.iloc[0].to_dict()
        layers = [*start, ALL] if len(start) > 1 else list(start)
        pairs = [(_units(start, layer), _units(best["widths"], layer)) for layer in layers]
        figure.add_trace(
            go.Bar(
                name=escape(arm),
                x=[escape(layer) for layer in layers],
                y=[100 * (before - after) / before for before, after in pairs],
                marker={"color": colour[arm]},
                text=[
                    f"<b>{escape(arm)}</b> trial {best['number']}, epoch {best['epoch']}<br>{escape(layer)}: "
                    f"{numbers.count(before)} units to {numbers.count(after)}"
                    for layer, (before, after) in zip(layers, pairs, strict=True)
                ],
                textposition="none",
                hoverinfo="text",
                showlegend=True,
            )
        )
    figure.update_layout(template=LIGHT, height=380, barmode="group", bargap=0.25)
    figure.update_xaxes(title_text="Layer", showgrid=False)
    figure.update_yaxes(title_text="Units removed (%)", zeroline=True, zerolinecolor="#8C8C8C")
    return figure


def _of_arm(trials: pd.DataFrame, arm: str) -> pd.DataFrame:
    return trials[(trials["arm"] == arm) & trials["knob"].notna()]


def _units(widths: Mapping[str, int], layer: str) -> int:
    return sum(widths.values()) if layer == ALL else widths[layer]


def _spread(layers: Sequence[str], most: int) -> list[str]:
    """At most so many of the layers, evenly from the first to the last."""
    places = np.linspace(0, len(layers) - 1, min(most, len(layers))).round().astype(int)
    return [layers[place] for place in places]


def _sparse(axis: dict[str, Any]) -> dict[str, Any]:
    """A log axis for a small panel: 2 5 10 where it would have had 2 3 4."""
    return {**axis, "dtick": "D2"} if axis.get("dtick") == "D1" else axis


def _knob_axis(name: str, low: float, high: float) -> dict[str, Any]:
    """The colour bar of a knob, from its logarithms; none where there is one value."""
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(powers) > 1:
        ticks = {float(power): f"1e{power}" for power in powers}
    else:
        ticks = {place: numbers.knob(10**place) for place in (low, high)}
    bar = {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "len": 0.7, "thickness": 10,
        "outlinewidth": 0, "title": {"text": escape(name), "side": "right"},
        "tickvals": list(ticks), "ticktext": list(ticks.values()),
    }  # fmt: skip
    scale = [[share, knob_colour(share)] for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return {"colorscale": scale, "cmin": low, "cmax": high, "showscale": high > low, "colorbar": bar}


def _over_epochs(
    run: pd.DataFrame, knob_name: str, layer: str, widths: Sequence[int], style: dict[str, Any]
) -> go.Scatter:
    """A trial's widths of one layer; the first of `widths` is the start."""
    first: dict[Any, Any] = run.iloc[0].to_dict()
    arm, epochs = escape(first["arm"]), [0, *run["epoch"].astype(int)]
    whose = f"<b>{arm}</b> trial {first['number']}, {escape(knob_name)} {numbers.knob(first['knob'])}"
    return go.Scatter(
        name=arm,
        legendgroup=arm,
        x=epochs,
        y=list(widths),
        mode="lines",
        line=style,
        text=[
            f"{whose}<br>{f'epoch {epoch}' if epoch else 'start'}, {escape(layer)}: {numbers.count(width)} units"
            for epoch, width in zip(epochs, widths, strict=True)
        ],
        hoverinfo="text",
    )


def _noted(notes: object) -> Mapping[str, Any]:
    found = notes.get("activity") if isinstance(notes, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _steps(noted: Mapping[str, Any], run: pd.DataFrame) -> list[dict[str, Any]]:
    """The network before the first round and after each: parameters, FLOPs, threshold, score, accepted."""
    first = noted["rounds"][0]["epoch"]
    before = run[run["epoch"] < first].tail(1)
    steps = [{"epoch": first - 1, "score": noted.get("initial"), "accepted": True, **_size(noted, before)}]
    for told in noted["rounds"]:
        same = run[run["epoch"] >= told["epoch"]]
        if "widths" in told:
            same = same[[widths == told["widths"] for widths in same["widths"]]]
        steps.append({**told, "score": told.get("score"), **_size(told, same)})
    return [{"threshold": None, **step} for step in steps]


def _size(told: Mapping[str, Any], run: pd.DataFrame) -> dict[str, Any]:
    """Parameters as they were told, else those of the first of these epochs, and its FLOPs; None where unknown."""
    found: dict[Any, Any] = run.iloc[0].to_dict() if len(run) else {}
    return {"parameters": told.get("parameters", found.get("parameters")), "flops": found.get("flops")}


def _round_line(
    row: dict[Any, Any],
    steps: Sequence[Mapping[str, Any]],
    values: Sequence[float | None],
    style: dict[str, Any],
    task: str,
    legend: bool,
) -> go.Scatter:
    knob = numbers.knob(row["knob"])
    return go.Scatter(
        name=knob,
        legendgroup=str(row["trial_id"]),
        showlegend=legend,
        x=list(range(len(steps))),
        y=list(values),
        mode="lines+markers",
        line=style,
        marker={"symbol": [ROUND_MARKERS[step["accepted"]] for step in steps], "size": 9, "color": style["color"]},
        text=[
            f"<b>{escape(str(row['knob_name']))} = {knob}</b> (trial {row['number']})<br>"
            + (f"round {place}, epoch {step['epoch']}: {ROUND_WORDS[step['accepted']]}" if place else "before")
            + (f"<br>threshold {step['threshold']:.3g}" if step["threshold"] is not None else "")
            + f"<br>{numbers.count(step['parameters'])} parameters, {numbers.si(step['flops'], 'FLOP')}<br>"
            f"validation {numbers.score_name(task)} {numbers.score(step['score'], task)}"
            for place, step in enumerate(steps)
        ],
        hoverinfo="text",
    )
