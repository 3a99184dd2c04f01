"""The page of a trial: its widths and losses over epochs, its architecture, what it cost, and what repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards import figures, graphs, numbers, sizing_figures
from dashboards.drawing import drawing
from dashboards.pages import BUSY, Page
from dashboards.repeating import repeating
from dashboards.source import Local
from dashboards.starts import starts
from studies import query, weights
from studies.progress import studies_of

OVERLAID = 5


def trial(source: Local, trial_id: int, beside: Sequence[int] | None = None) -> Page:
    """The page.

    Args:
        source: What it shows.
        trial_id: The trial.
        beside: Those whose curves are drawn with its own; of its arm's, some over the knob's range unless given.

    Raises:
        UnknownNameError: There is no such trial, or it belongs to no evaluation.
    """
    name, row = query.trial(source.database, trial_id)
    row = row.astype(object).where(row.notna(), None)
    spec, data = source.spec(name), source.data(name)
    everyone = query.trials(source.database, name, row["arm"])
    others = _others(everyone, row, beside)
    history = query.history(source.database, name, [trial_id, *others])
    own = history[history["trial_id"] == trial_id].sort_values("epoch")
    start = starts(spec, everyone).get(row["arm"])
    plots: dict[str, go.Figure] = {}
    if len(own):
        plots["widths"] = sizing_figures.widths_over_epochs(own, start)
        plots["scores"] = figures.scores_over_epochs(own, data["task"])
    if others and row["knob_name"]:
        plots["beside"] = figures.convergence(history, row["arm"], row["knob_name"], curves=len(others) + 1)
    said, kept = query.said(source.database, trial_id), weights.kept_epochs(source.database, trial_id)
    graph = graphs.drawn(source, name, spec, row) if row["epoch"] in kept else None
    lines, why = repeating(spec, row.to_dict(), start) if row["epochs"] else ([], "It has no epoch to repeat yet.")
    values = {
        "repeats": "\n".join(lines), "repeats_not": why,
        "here": "trial", "name": name, "row": row.to_dict(), "task": data["task"],
        "score": numbers.score_name(data["task"]),
        "study": studies_of(source.database, name)[row["arm"]], "kept": kept,
        "changes": changes(own, start), "facts": _facts(row),
        "traceback": said.get("traceback", ""), "environment": _environment(row, said),
        "drawing": graph or (drawing(row["widths"], start, data) if row["widths"] else ""), "others": others,
        "running": row["state"] == "RUNNING", "best": row["epoch"] if row["widths"] else None,
        "choices": _choices(everyone, row),
    }  # fmt: skip
    title = f"sizer: {name}, {row['arm']} trial {row['number']}"
    return Page("trial.html", title, values, plots, every=BUSY if row["state"] == "RUNNING" else 0)


def changes(epochs: pd.DataFrame, start: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """What went and came: epoch, layer, and units before and after, in order.

    Args:
        epochs: Of one trial, in order, as `studies.query.history` has them.
        start: Layer -> units before the first epoch; None where that is not known.
    """
    found, before = [], start
    for row in epochs.to_dict("records"):
        for layer, width in row["widths"].items():
            was = (before or {}).get(layer)
            if was is not None and was != width:
                found.append({"epoch": row["epoch"], "layer": layer, "was": was, "now": width})
        before = row["widths"]
    return found


def _others(everyone: pd.DataFrame, row: pd.Series[Any], beside: Sequence[int] | None) -> list[int]:
    arm = everyone[(everyone["arm"] == row["arm"]) & everyone["knob"].notna() & everyone["epoch"].notna()]
    if beside is not None:
        known = set(arm["trial_id"])
        return [each for each in beside if each in known and each != row["trial_id"]]
    return [each for each in figures.across_knob(arm, OVERLAID) if each != row["trial_id"]]


def _choices(everyone: pd.DataFrame, row: pd.Series[Any]) -> list[dict[str, Any]]:
    """The trials of the arm that may be drawn beside this one."""
    arm = everyone[(everyone["arm"] == row["arm"]) & everyone["knob"].notna() & everyone["epoch"].notna()]
    arm = arm[arm["trial_id"] != row["trial_id"]].sort_values("knob")
    return [
        {"id": each["trial_id"], "told": f"{each['knob_name']} {numbers.knob(each['knob'])} (trial {each['number']})"}
        for each in arm.to_dict("records")
    ]


def _facts(row: pd.Series[Any]) -> dict[str, str]:
    """What a trial was and cost: label -> text."""
    found = {
        "method": row["method"],
        row["knob_name"] or "knob": numbers.knob(row["knob"]) if row["knob_name"] else "none",
        "seed": numbers.count(row["seed"]),
        "learning rate": numbers.knob(row["learning_rate"]),
        "parameters": numbers.count(row["parameters"]),
        "FLOPs of a sample": numbers.si(row["flops"], "FLOP"),
        "latency": f"{row['latency_ms']:.3g} ms" if pd.notna(row["latency_ms"]) else "-",
        "epochs": numbers.count(row["epochs"]),
        "training": numbers.si(row["training_flops"], "FLOP"),
        "time": numbers.duration(row["seconds"]),
        "peak memory": numbers.si(row["peak_memory"], "B"),
    }
    return {label: text for label, text in found.items() if text not in ("-", "")}


def _environment(row: pd.Series[Any], said: Mapping[str, Any]) -> dict[str, str]:
    """Under what it was trained, as far as that is known: label -> text."""
    found = {"device": row["device"], **said.get("environment", {}), "commit": said.get("commit", "")}
    return {label: text for label, text in found.items() if text}
