"""Figures of an evaluation: data frame in, plotly Figure out; nothing here reads a database or a file.

Accuracies are drawn in percent, R^2 as it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import numbers
from dashboards.looks import DASHES, LIGHT, PALETTE, colours, faded, knob_colour, marker
from dashboards.scales import ScoreAxis, few_epochs, positive_axis
from studies.compare import Comparison, finished, ranked, with_network

MANY = 24
"""Arms up to which each has a trace of its own."""
_PLACED = ("arm", "number", "test_accuracy", "parameters")
_TOLD = (
    "arm", "number", "epoch", "knob_name", "knob", "status", "reason", "training_flops", "test_accuracy",
    "val_accuracy", "parameters", "widths",
)  # fmt: skip
_EACH = ("x", "y", "text", "q1", "median", "q3", "lowerfence", "upperfence")
"""What a trace has of each of its marks."""


def distribution(trials: pd.DataFrame, task: str = "classification", dependent: Collection[str] = ()) -> go.Figure:
    """Figure 2: test accuracy at the best validation epoch, a box an arm and every trial as a point.

    The box is the quartiles, its line the median; the whiskers go to the worst and the best trial. An open mark is a
    trial that was pruned, where it then stood: it is in no box. Arms whose trials depend on each other have none.
    """
    colour, trials = colours(trials["arm"]), told(trials, task).sort_values(["test_accuracy", "number"])
    done, pruned = finished(trials), with_network(trials[trials["state"] == "PRUNED"])
    axis = ScoreAxis.of([*done["test_accuracy"], *pruned["test_accuracy"]], task)
    figure, each_done, each_pruned = go.Figure(), _by_arm(done), _by_arm(pruned)
    traces: list[dict[str, Any]] = []
    for place, arm in enumerate(colour):
        cut = each_pruned.get(arm)
        if cut is not None:
            marks = _points(arm, cut, axis.place(cut["test_accuracy"]), _scattered(place, len(cut)), colour)
            marks["marker"]["symbol"] += "-open"
            traces.append(marks)
        rows = each_done.get(arm)
        if rows is None:
            continue
        values = axis.place(rows["test_accuracy"])
        if arm not in dependent:
            quartiles = np.percentile(rows["test_accuracy"].to_numpy(), [0, 25, 50, 75, 100])
            traces.append(_box(place, axis.place(quartiles), colour[arm]))
        traces.append(_points(arm, rows, values, _scattered(place, len(values)), colour))
    figure.add_traces(_merged(traces, len(colour)))
    each = 78 if len(colour) <= MANY else 34
    figure.update_layout(template=LIGHT, height=110 + each * max(1, len(colour)), showlegend=False)
    figure.update_xaxes(axis.layout("Test"))
    figure.update_yaxes(
        tickvals=list(range(len(colour))),
        ticktext=[_arm_label(arm) for arm in colour],
        range=[len(colour) - 0.45, -0.55],
        showgrid=False,
        ticks="",
    )
    return figure


def _box(place: int, percentiles: Sequence[float], colour: str) -> dict[str, Any]:
    """A box at a place, of the least value, the quartiles and the greatest, as they lie on the axis."""
    low, lower, median, upper, high = percentiles
    return {
        "type": "box",
        "orientation": "h",
        "y": [place],
        "q1": [lower],
        "median": [median],
        "q3": [upper],
        "lowerfence": [low],
        "upperfence": [high],
        "width": 0.62,
        "line": {"color": colour, "width": 2},
        "fillcolor": faded(colour, 0.18),
        "hoverinfo": "skip",
        "showlegend": False,
    }


def expected_best(comparison: Comparison, against: str = "trials") -> go.Figure:
    """Expected test accuracy of the trial that validation chooses among n, against "trials" or training "flops".

    Of many arms those are drawn whose expected best of all their trials is highest.
    """
    begun = [arm for arm in comparison.arms if arm.begun]
    colour = colours(arm.name for arm in begun)
    if len(begun) > MANY:
        best = sorted(begun, key=lambda arm: arm.expected[-1] if arm.expected else -math.inf, reverse=True)[:MANY]
        begun = [arm for arm in begun if arm in best]
    axis = ScoreAxis.of((value for arm in begun for value in arm.expected if math.isfinite(value)), comparison.task)
    traces = []
    for arm in begun:
        place = list(colour).index(arm.name)
        if not arm.expected or (against == "flops" and not arm.cost):
            continue
        known = [(n, value) for n, value in enumerate(arm.expected, start=1) if math.isfinite(value)]
        trials, values = np.array([n for n, _ in known]), [value for _, value in known]
        costs = trials * (arm.cost or 0.0)
        texts = [
            f"<b>{escape(arm.name)}</b><br>best of {n}: {numbers.score(value, comparison.task)}<br>"
            f"training: {numbers.si(cost, 'FLOP')}"
            for n, value, cost in zip(trials.tolist(), values, costs.tolist(), strict=True)
        ]
        traces.append(
            go.Scatter(
                name=escape(arm.name),
                x=costs if against == "flops" else trials,
                y=np.asarray(axis.place(values)),
                mode="lines+markers",
                line={"color": colour[arm.name], "width": 2, "dash": DASHES[place // len(PALETTE) % len(DASHES)]},
                marker={**marker(place, colour[arm.name]), "maxdisplayed": 15},
                text=np.asarray(texts, dtype=object),
                hoverinfo="text",
            )
        )
    figure = go.Figure(traces)
    figure.update_layout(template=LIGHT, height=380)
    figure.update_yaxes(axis.layout("Expected best"))
    if against == "flops":
        spent = [n * (arm.cost or 0.0) for arm in comparison.arms for n in (1, len(arm.expected))]
        figure.update_xaxes(positive_axis(spent), title_text="Training FLOPs spent")
    else:
        most = max((len(arm.expected) for arm in begun), default=1)
        figure.update_xaxes(title_text="Trials", **({"dtick": 1} if most < 12 else {}))
    return figure


def size_against_accuracy(
    trials: pd.DataFrame,
    front: pd.DataFrame,
    task: str = "classification",
    walks: Collection[str] = (),
    budgets: Sequence[int] = (),
) -> go.Figure:
    """Test accuracy against parameters, a point a trial; the dotted line joins the front, which validation chose.

    Args:
        trials, front: as `studies.query` and `studies.selection` give them.
        task: of the evaluation.
        walks: arms whose trials are the steps of a path: a line joins them as they were walked.
        budgets: numbers of parameters that networks are looked for under: an upright line each.
    """
    colour, done = colours(trials["arm"]), finished(trials)
    for arm in walks:  # what a step cost is all that was trained up to it
        own = done[done["arm"] == arm].sort_values("number")
        done = done.assign(
            training_flops=done["training_flops"].where(done["arm"] != arm, own["training_flops"].cumsum())
        )
    done = told(done.drop(columns="told", errors="ignore") if walks else done, task)
    axis, each = ScoreAxis.of([*done["test_accuracy"], *front["test_accuracy"]], task), _by_arm(done)
    figure = go.Figure()
    if len(front):
        line = front.sort_values("parameters")
        figure.add_trace(
            go.Scatter(
                name="front",
                legendrank=2000,
                x=line["parameters"].astype(float).tolist(),
                y=axis.place(line["test_accuracy"]),
                mode="lines+markers",
                line={"color": "#8C8C8C", "width": 1.5, "dash": "dot"},
                marker={"symbol": "circle-open", "size": 13, "color": "#8C8C8C", "line": {"width": 1.5}},
                text=[f"on the front<br>{text}" for text in told(line, task)["told"]],
                hoverinfo="text",
            )
        )
    traces = []
    for arm in colour:
        if arm in each:
            rows = each[arm].sort_values("number") if arm in walks else each[arm]
            values, sizes = axis.place(rows["test_accuracy"]), rows["parameters"].astype(float).tolist()
            traces.append(_points(arm, rows, sizes, values, colour, line=arm in walks))
    figure.add_traces(_merged(traces, len(colour)))
    for budget in budgets:
        figure.add_vline(x=budget, line={"color": "#8C8C8C", "width": 1}, layer="below")
    figure.update_layout(template=LIGHT, height=420)
    figure.update_xaxes(positive_axis(done["parameters"]), title_text="Parameters")
    figure.update_yaxes(axis.layout("Test"))
    return figure


def convergence(history: pd.DataFrame, arm: str, knob_name: str, curves: int = 5) -> go.Figure:
    """Figure 1: units and validation loss over epochs, for up to `curves` trials of a sizing arm across its knob."""
    rows = history[(history["arm"] == arm) & history["knob"].notna()]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    chosen = across_knob(rows, curves)
    alike = rows[rows["trial_id"].isin(chosen)].groupby("trial_id")["knob"].first().duplicated().any()
    for place, trial_id in enumerate(chosen):
        run = rows[rows["trial_id"] == trial_id].sort_values("epoch")
        knob = numbers.knob(float(run["knob"].iloc[0]))
        called = f"{knob} (trial {run['number'].iloc[0]})" if alike else knob
        style = {
            "color": knob_colour(place / max(1, len(chosen) - 1)),
            "width": 2.2,
            "dash": DASHES[place % len(DASHES)],
        }
        labels = [
            f"<b>{escape(knob_name)} = {knob}</b> (trial {row['number']})<br>epoch {row['epoch']}<br>"
            f"{widths_text(row['widths'])}<br>validation loss {row['val_loss']:.4g}"
            for row in run.to_dict("records")
        ]
        shared: dict[str, Any] = {
            "x": run["epoch"].astype(int).tolist(),
            "mode": "lines" if len(run) > 1 else "markers",
            "line": style,
            "marker": {"color": style["color"], "size": 7},
            "text": labels,
            "hoverinfo": "text",
            "legendgroup": called,
            "name": called,
        }
        units = [sum(widths.values()) for widths in run["widths"]]
        figure.add_trace(go.Scatter(y=units, **shared), row=1, col=1)
        figure.add_trace(go.Scatter(y=run["val_loss"].tolist(), showlegend=False, **shared), row=2, col=1)
    figure.update_layout(template=LIGHT, height=520, legend_title_text=f"{escape(knob_name)} =")
    seen = [sum(widths.values()) for widths in rows.loc[rows["trial_id"].isin(chosen), "widths"]]
    figure.update_yaxes(positive_axis(seen), title_text="Units", row=1, col=1)
    losses = rows.loc[rows["trial_id"].isin(chosen), "val_loss"].dropna()
    loss_axis = {**positive_axis(losses), "tickformat": "~g"} if len(losses) and losses.min() > 0 else {}
    figure.update_yaxes(loss_axis, title_text="Validation loss", row=2, col=1)
    figure.update_xaxes(few_epochs(rows.loc[rows["trial_id"].isin(chosen), "epoch"].tolist()))
    figure.update_xaxes(title_text="Epoch", row=2, col=1)
    return figure


def scores_over_epochs(run: pd.DataFrame, task: str = "classification") -> go.Figure:
    """Losses of one trial over its epochs, and validation and test accuracy.

    Args:
        run: the epochs of the trial, in order, as `studies.query.history` has them.
        task: of the evaluation.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    axis = ScoreAxis.of((value for part in ("val", "test") for value in run[f"{part}_accuracy"].dropna()), task)
    epochs = run["epoch"].astype(int).tolist()
    for place, (part, word) in enumerate((("train", "training"), ("val", "validation"), ("test", "test"))):
        style: dict[str, Any] = {
            "x": epochs,
            "mode": "lines" if len(run) > 1 else "markers",
            "line": {"color": PALETTE[place], "width": 2, "dash": DASHES[place]},
            "name": word,
            "legendgroup": word,
            "hoverinfo": "text",
        }
        losses = run[f"{part}_loss"].tolist()
        text = [f"epoch {epoch}, {word} loss {loss:.4g}" for epoch, loss in zip(epochs, losses, strict=True)]
        figure.add_trace(go.Scatter(y=losses, text=text, **style), row=1, col=1)
        if part != "train":
            scores = run[f"{part}_accuracy"].tolist()
            placed = [None if math.isnan(score) else axis.place([score])[0] for score in scores]
            text = [
                f"epoch {epoch}, {word} {numbers.score_name(task)} {numbers.score(score, task)}"
                for epoch, score in zip(epochs, scores, strict=True)
            ]
            figure.add_trace(go.Scatter(y=placed, text=text, showlegend=False, **style), row=2, col=1)
    figure.update_layout(template=LIGHT, height=380)
    losses = [loss for part in ("train", "val", "test") for loss in run[f"{part}_loss"].dropna()]
    scale = {**positive_axis(losses), "tickformat": "~g"} if losses and min(losses) > 0 else {}
    figure.update_yaxes(scale, title_text="Loss", row=1, col=1)
    figure.update_yaxes(axis.layout(""), row=2, col=1)
    figure.update_xaxes(few_epochs(epochs))
    figure.update_xaxes(title_text="Epoch", row=2, col=1)
    return figure


def knob_effect(trials: pd.DataFrame, arm: str, task: str = "classification") -> go.Figure:
    """What a sizing arm's knob does: parameters and test accuracy of its trials against the knob."""
    colour = colours(trials["arm"])
    rows = finished(trials)
    rows = told(rows[(rows["arm"] == arm) & rows["knob"].notna()].sort_values("knob"), task)
    name = str(rows["knob_name"].iloc[0]) if len(rows) else "knob"
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    axis = ScoreAxis.of(rows["test_accuracy"], task)
    knobs = rows["knob"].tolist()
    for place, values in enumerate((rows["parameters"].astype(float).tolist(), axis.place(rows["test_accuracy"]))):
        figure.add_trace(_points(arm, rows, knobs, values, colour, line=True), row=place + 1, col=1)
    if len(rows):
        chosen = float(ranked(rows)["knob"].iloc[0])
        figure.add_vline(x=chosen, line={"color": "#8C8C8C", "width": 1, "dash": "dash"}, layer="below")
    figure.update_layout(template=LIGHT, height=520, showlegend=False)
    figure.update_yaxes(positive_axis(rows["parameters"]), title_text="Parameters", row=1, col=1)
    figure.update_yaxes(axis.layout("Test"), row=2, col=1)
    powers = {"type": "log", "dtick": 1, "exponentformat": "power"}
    figure.update_xaxes(powers, row=1, col=1)
    figure.update_xaxes(powers, title_text=f"{escape(name)} ({escape(arm)})", row=2, col=1)
    return figure


def _scattered(place: int, count: int) -> list[float]:
    """Points around a place: the golden ratio spreads neighbours in rank far apart, and does so alike each time."""
    return [place + 0.42 * ((rank * 0.618034) % 1 - 0.5) for rank in range(count)]


def _points(
    arm: str,
    rows: pd.DataFrame,
    x: Sequence[float],
    y: Sequence[float],
    colour: dict[str, str],
    line: bool = False,
) -> dict[str, Any]:
    """A scatter trace of an arm's trials."""
    return {
        "type": "scatter",
        "name": escape(arm),
        # Arrays: plotly looks at every entry of a list.
        "x": np.asarray(x),
        "y": np.asarray(y),
        "mode": "lines+markers" if line else "markers",
        "line": {"color": faded(colour[arm], 0.5), "width": 1.5},
        "marker": {**marker(list(colour).index(arm), colour[arm]), "opacity": 0.85},
        "text": rows["told"].to_numpy(),
        "hoverinfo": "text",
    }


def _merged(traces: list[dict[str, Any]], arms: int) -> list[dict[str, Any]]:
    """Of many arms the boxes of a colour, and its points, are one trace: a browser draws them sooner, and no legend
    would hold them."""
    if arms <= MANY:
        return traces
    joined = []
    alike: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for trace in traces:
        if trace.get("mode") == "lines+markers":
            joined.append(trace)
            continue
        marked = trace.get("marker") or trace["line"]
        is_open = marked.get("symbol", "").endswith("-open")
        alike.setdefault((trace["type"], marked["color"], is_open), []).append(trace)
    return joined + [
        {**same[0], **{key: np.concatenate([each[key] for each in same]) for key in same[0] if key in _EACH},
         "showlegend": False}
        for same in alike.values()
    ]  # fmt: skip


def told(rows: pd.DataFrame, task: str = "classification") -> pd.DataFrame:
    """Trials, or epochs of them, with a column `told`: what is said of each where one points at it.

    Figures do this by themselves; who draws several of the same frame does it once.
    """
    if "told" in rows:
        return rows
    names = [name for name in _TOLD if name in rows]
    each = [
        dict(zip(names, values, strict=True)) for values in zip(*(rows[name].tolist() for name in names), strict=True)
    ]
    return rows.assign(told=[_described(row, task) if pd.notna(row["parameters"]) else "" for row in each])


def _by_arm(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Arm -> its rows, those columns that a figure needs."""
    return {str(arm): own for arm, own in rows[[*_PLACED, "told"]].groupby("arm", sort=False)}


def _described(row: dict[Any, Any], task: str) -> str:
    """A trial (or one of its epochs) for the hover label."""
    name = numbers.score_name(task)
    knob = f", {escape(str(row['knob_name']))} {numbers.knob(row['knob'])}" if row.get("knob_name") else ""
    said = {"collapsed": ", collapsed later", "pruned": f", pruned ({escape(str(row.get('reason', '')))})"}
    later = said.get(str(row.get("status")), "")
    spent = row.get("training_flops")
    cost = "" if spent is None or pd.isna(spent) else f", {numbers.si(float(spent), 'FLOP')} of training"
    return (
        f"<b>{escape(str(row['arm']))}</b> trial {row['number']}, epoch {row['epoch']}{knob}{later}<br>"
        f"test {name} {numbers.score(row['test_accuracy'], task)}, "
        f"validation {numbers.score(row['val_accuracy'], task)}<br>"
        f"{numbers.count(row['parameters'])} parameters{cost}<br>{widths_text(row['widths'])}"
    )


def widths_text(widths: dict[str, int]) -> str:
    """Layer by layer; a long network is cut to its first and last layers."""
    parts = [f"{escape(layer)} {width:,}" for layer, width in widths.items()]
    return ", ".join(parts if len(parts) <= 6 else [*parts[:3], f"... ({len(parts) - 6} more)", *parts[-3:]])


def across_knob(rows: pd.DataFrame, curves: int) -> list[int]:
    """Trials whose knobs lie nearest to `curves` values spread evenly, on a log scale, over the range there is."""
    knobs = rows.groupby("trial_id")["knob"].first().sort_values(kind="stable")
    if len(knobs) <= curves:
        return [int(trial) for trial in knobs.index]
    logs = np.log(knobs.to_numpy(dtype=np.float64))
    wanted = np.linspace(logs[0], logs[-1], curves)
    places = sorted({int(np.abs(logs - value).argmin()) for value in wanted})
    return [int(knobs.index[place]) for place in places]


def _arm_label(arm: str) -> str:
    return escape(arm).replace("/", "/<br>")
