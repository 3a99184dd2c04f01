"""What Optuna Dashboard shows of an evaluation beside its own: a description of each study, and our figures."""

from __future__ import annotations

from typing import Any

import optuna
import optuna_dashboard
import plotly.graph_objects as go

from dashboards import figures, numbers, tables
from dashboards.facts import facts
from dashboards.pages import evaluation_path, knob_path
from dashboards.pages.overview import sizing_arms
from dashboards.source import Local
from studies.compare import Comparison, compare_plan, finished, ranked
from studies.progress import studies_of

MOST = 500
"""Trials of an evaluation of which figures are saved: each is kept in rows of 2 kB."""


def publish(source: Local, name: str) -> None:
    """Writes the description and the figures of each of an evaluation's studies, over those of an earlier time."""
    spec, task = source.spec(name), source.data(name)["task"]
    trials = source.trials(name)
    arms = figures.told(trials[trials["stage"] == ""], task)
    comparison = compare_plan(spec, arms, task=task)
    shared = {}
    if len(finished(arms)) and len(arms) <= MOST:
        dependent = [arm.name for arm in comparison.arms if arm.dependent]
        shared["sizer-distribution"] = figures.distribution(arms, task, dependent).update_layout(
            title="Test score of every trial, arm by arm", margin={"t": 48}
        )
    for arm, study in studies_of(source.database, name).items():
        if "stage" in spec["arms"][arm]:
            continue
        opened = optuna.load_study(storage=source.database.storage, study_name=study.name)
        optuna_dashboard.save_note(opened, _described(name, arm, spec, comparison, arms, task))
        for key, figure in {**shared, **_own(name, arm, spec, arms, task)}.items():
            optuna_dashboard.save_plotly_graph_object(opened, figure, graph_object_id=key)


def _own(name: str, arm: str, spec: dict[str, Any], arms: Any, task: str) -> dict[str, go.Figure]:
    done = finished(arms[arms["arm"] == arm])
    if arm not in sizing_arms(spec) or not len(done) or len(done) > MOST:
        return {}
    figure = figures.knob_effect(arms, arm, task)
    return {"sizer-knob": figure.update_layout(title=f"What {arm}'s knob does", margin={"t": 48}, height=420)}


def _described(name: str, arm: str, spec: dict[str, Any], comparison: Comparison, arms: Any, task: str) -> str:
    """Markdown: what the study is, what came out, and where our pages of it are."""
    told = facts(spec)
    found = next(each for each in comparison.arms if each.name == arm)
    lines = [
        f"**{arm}** of the evaluation **{name}**: {told.get(arm, '')}.",
        f"{told['data']}; {told['network']}; {told['training']}.",
    ]
    done = finished(arms[arms["arm"] == arm])
    if len(done):
        best = ranked(done).iloc[0]
        lines.append(
            f"{found.finished} trials have a result. Validation chooses trial {best['number']}: validation "
            f"{numbers.score(best['val_accuracy'], task)}, test {numbers.score(best['test_accuracy'], task)}, "
            f"{numbers.count(best['parameters'])} parameters."
        )
    lines += [f"- {line}" for line in tables.findings(comparison) if arm in line]
    links = [f"[the whole evaluation]({evaluation_path(name)})"]
    links += [f"[what its knob does]({knob_path(name, arm)})"] if arm in sizing_arms(spec) else []
    lines.append(f"On the address of `sizer dashboard`: {', '.join(links)}.")
    return "\n\n".join(lines)
