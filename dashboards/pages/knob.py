"""The page of a sizing arm: what its knob does to widths and accuracy, over all seeds, and the value that is chosen."""

from __future__ import annotations

import plotly.graph_objects as go

from dashboards import figures, numbers, sizing_figures
from dashboards.pages import BUSY, IDLE, Page
from dashboards.pages.overview import sizing_arms
from dashboards.source import Local
from dashboards.starts import starts
from sizer.errors import unknown
from studies import query
from studies.compare import finished, ranked
from studies.progress import studies_of


def knob(source: Local, name: str, arm: str | None = None) -> Page:
    """The page.

    Args:
        source: What it shows.
        name: The evaluation.
        arm: The sizing arm; the first one unless given.

    Raises:
        UnknownNameError: There is no such evaluation, or no such arm that sizes.
    """
    spec, standing = source.spec(name), source.standing(name)
    sizing = sizing_arms(spec)
    if arm is None and sizing:
        arm = sizing[0]
    if arm is None or arm not in sizing:
        raise unknown(f"sizing arm of {name}", str(arm), sizing)
    trials = source.trials(name)
    task = source.data(name)["task"]
    done = finished(trials[trials["arm"] == arm])
    plots: dict[str, go.Figure] = {}
    starting = starts(spec, trials)
    alike = [each for each in starting if spec["arms"][each]["method"] == spec["arms"][arm]["method"]]
    if len(done):
        plots["knob"] = figures.knob_effect(trials, arm, task)
        plots["layers"] = sizing_figures.sizes_against_knob(trials, arm)
        ids = [
            trial
            for each in (alike or [arm])
            for trial in figures.across_knob(finished(trials[trials["arm"] == each]), 5)
        ]
        history = query.history(source.database, name, ids)
        knob_name = str(done["knob_name"].iloc[0])
        plots["convergence"] = figures.convergence(history, arm, knob_name)
        if arm in starting:
            shown = {each: starting[each] for each in alike}
            plots["starts"] = sizing_figures.widths_from_starts(history, trials, shown)
    values = {
        "here": "knob", "name": name, "arm": arm, "sizing": sizing, "standing": standing,
        "score": numbers.score_name(task), "task": task, "study": studies_of(source.database, name).get(arm),
        "best": ranked(done).iloc[0].to_dict() if len(done) else None, "alike": alike,
    }  # fmt: skip
    return Page("knob.html", f"sizer: {name}, {arm}", values, plots, every=BUSY if standing.held else IDLE)
