"""The page of an evaluation: what came out, every trial as a point and a row, and the best network under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from dashboards import aims, figures, graphs, looks, numbers, tables
from dashboards.commands import over_folds_of
from dashboards.drawing import drawing
from dashboards.facts import facts
from dashboards.pages import BUSY, IDLE, Page
from dashboards.pages.overview import sizing_arms
from dashboards.source import Local
from dashboards.starts import starts
from sizer.errors import InputError
from studies import selection, target
from studies.compare import Comparison, compare_plan
from studies.path import walks
from studies.progress import running, seconds_left, studies_of

DRAWN = 12
"""Networks under a budget of which the weights are read to draw them."""
COLUMNS = (
    ("arm", "arm", True, ""),
    ("number", "trial", False, ""),
    ("state", "state", True, ""),
    ("knob", "knob", False, ""),
    ("val_accuracy", "validation", False, "down"),
    ("test_accuracy", "test", False, "down"),
    ("parameters", "parameters", False, ""),
    ("flops", "FLOPs", False, ""),
    ("training_flops", "training", False, ""),
    ("seconds", "time", False, ""),
    ("epoch", "epoch", False, ""),
    ("widths", "widths", True, ""),
)
"""Key, heading, whether it is words, and which way it is sorted first, of the columns of the table of trials."""


def evaluation(source: Local, name: str) -> Page:
    """The page.

    Raises:
        UnknownNameError: There is no such evaluation.
    """
    standing, spec, data = source.standing(name), source.spec(name), source.data(name)
    trials = source.trials(name)
    task = data["task"]
    arms = figures.told(trials[trials["stage"] == ""], task)
    comparison = compare_plan(
        spec, arms, task=task, planned={arm.arm: arm.planned for arm in standing.arms if not arm.stage}
    )
    offers = _offers(source, name)
    plots = _plots(comparison, arms, offers, spec, task) if any(arm.finished for arm in comparison.arms) else {}
    planned = sum(arm.planned for arm in standing.arms)
    ended = planned - sum(arm.running + arm.waiting for arm in standing.arms)
    known = starts(spec, arms)
    colours = looks.colours(arms["arm"])
    values = {
        "here": "evaluation", "name": name, "standing": standing, "planned": planned, "ended": ended, "task": task,
        "left": seconds_left(source.database, standing) if ended < planned else None,
        "running": running(source.database, name), "studies": studies_of(source.database, name),
        "sizing": sizing_arms(spec), "findings": tables.findings(comparison), "failures": tables.failures(comparison),
        "score": numbers.score_name(task), "arms": list(colours), "many": figures.MANY,
        "tables": [tables.accuracies(comparison), *([tables.pairs(comparison)] if comparison.pairs else [])],
        "costs": tables.costs(comparison), "colours": colours, "columns": COLUMNS,
        "offers": [{**row, "key": _key(row), "drawing": graph or drawing(row["widths"], known.get(row["arm"]), data)}
                   for row, graph in zip(offers.to_dict("records"), _graphs(source, name, spec, offers), strict=True)],
        "timed": bool(offers["latency_ms"].notna().any()) if len(offers) else False,
        "facts": facts(spec, data), "description": spec.get("description", ""),
        "folds": over_folds_of(arms, spec, data),
        **_target(source, spec, arms, name),
    }  # fmt: skip
    told = [
        {"key": _key(row), **{size: _number(row[size]) for size in ("parameters", "flops", "latency_ms")}}
        for row in offers.to_dict("records")
    ]
    shown = {"trial-rows": _rows(trials, task), "offers": told}
    return Page("evaluation.html", f"sizer: {name}", values, plots, shown, BUSY if standing.held else IDLE)


def _graphs(source: Local, name: str, spec: Mapping[str, Any], offers: pd.DataFrame) -> list[Markup | None]:
    """Of the first offers what is drawn of their weights, where that is more than their widths."""
    first = [graphs.drawn(source, name, spec, row, beside=False) for _, row in offers.head(DRAWN).iterrows()]
    return first + [None] * (len(offers) - len(first))


def _target(source: Local, spec: Mapping[str, Any], arms: pd.DataFrame, name: str) -> dict[str, Any]:
    """What came of the plan's target."""
    wanted = target.by_arm(spec, arms, source.history(name)) if spec.get("target") else {}
    if not wanted:
        return {"target": None, "not_met": []}
    return {"target": aims.table(wanted, spec), "not_met": aims.not_met(wanted, spec)}


def _offers(source: Local, name: str) -> pd.DataFrame:
    try:
        return selection.offers(source.database, name)
    except InputError:  # none is complete yet
        return pd.DataFrame()


def _plots(
    comparison: Comparison, trials: pd.DataFrame, front: pd.DataFrame, spec: Mapping[str, Any], task: str
) -> dict[str, go.Figure]:
    dependent = [arm.name for arm in comparison.arms if arm.dependent]
    return {
        "distribution": figures.distribution(trials, task, dependent),
        "expected-trials": figures.expected_best(comparison, "trials"),
        "expected-flops": figures.expected_best(comparison, "flops"),
        "size": figures.size_against_accuracy(
            trials, front.sort_values("parameters"), task, walks(spec), (spec.get("target") or {}).get("params", [])
        ),
    }


def _rows(trials: pd.DataFrame, task: str) -> dict[str, Any]:
    """The trials for the table: values to sort by, texts to show, and one to filter by."""
    told = []
    names = ["trial_id", "status", "reason", "knob_name", *(key for key, *_ in COLUMNS)]
    each = zip(*([_known(value) for value in trials[name].tolist()] for name in names), strict=True)
    for row in (dict(zip(names, values, strict=True)) for values in each):
        widths = " ".join(f"{layer} {width}" for layer, width in row["widths"].items())
        state = row["status"] or row["state"].lower()
        shown = {
            "arm": row["arm"], "number": str(row["number"]),
            "state": f"{state}: {row['reason']}" if row["reason"] else state,
            "knob": "" if row["knob"] is None else f"{row['knob_name']} {numbers.knob(row['knob'])}",
            **{key: _blank(numbers.score(row[key], task), row[key]) for key in ("val_accuracy", "test_accuracy")},
            **{key: _blank(numbers.count(row[key]), row[key]) for key in ("parameters", "epoch")},
            "flops": _blank(numbers.si(row["flops"]), row["flops"]),
            "training_flops": _blank(numbers.si(row["training_flops"], "FLOP"), row["training_flops"]),
            "seconds": _blank(numbers.duration(row["seconds"]), row["seconds"]),
            "widths": figures.widths_text(row["widths"]) if len(row["widths"]) > 6 else widths,
        }  # fmt: skip
        values = {key: row[key] for key, *_ in COLUMNS if key not in ("widths", "state")}
        told.append(
            {**values, "state": state, "widths": sum(row["widths"].values()), "id": row["trial_id"], "shown": shown,
             "text": f"{row['arm']} {shown['state']} {shown['knob']} {widths} trial {row['number']}".lower()}
        )  # fmt: skip
    return {"columns": [{"key": key, "words": words} for key, _, words, _ in COLUMNS], "rows": told}


def _known(value: Any) -> Any:
    """None for what is no number."""
    return None if value is pd.NA or value != value else value


def _blank(text: str, value: Any) -> str:
    return "" if value is None else text


def _number(value: Any) -> float | int | None:
    return None if pd.isna(value) else float(value) if isinstance(value, float) else int(value)


def _key(row: Mapping[Any, Any]) -> str:
    return f"{row['trial_id']}-{row['epoch']}"
