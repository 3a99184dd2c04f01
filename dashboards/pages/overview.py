"""The overview: every evaluation of a database, how far it is, who runs it, what failed, and the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.pages import BUSY, IDLE, Page
from dashboards.source import Local
from sizer.errors import InputError
from sizer.methods import method_class
from studies import progress
from studies.launch import Submissions
from studies.standing import Standing


def overview(source: Local, submissions: Submissions) -> Page:
    """The page.

    Args:
        source: What it shows.
        submissions: What is on its way.
    """
    standings = [source.standing(name) for name in source.plan_names()]
    begun = [_entry(source, each) for each in standings]
    waiting = list(submissions.not_begun().values())
    others = progress.others(source.database)
    busy = bool(waiting) or any(each.held for each in standings)
    values = {"here": "overview", "entries": begun, "waiting": waiting, "others": others, "where": _where(source)}
    return Page("overview.html", "sizer", values, every=BUSY if busy else IDLE)


def _where(source: Local) -> str:
    return source.database.url.render_as_string(hide_password=True)


def _entry(source: Local, standing: Standing) -> dict[str, Any]:
    try:
        best = source.best(standing.name)
    except InputError:  # none is complete yet
        best = None
    planned = sum(arm.planned for arm in standing.arms)
    ended = planned - sum(arm.running + arm.waiting for arm in standing.arms)
    return {
        "standing": standing,
        "planned": planned,
        "ended": ended,
        "failed": sum(arm.failed for arm in standing.arms),
        "epochs": sum(arm.epochs for arm in standing.arms),
        "left": progress.seconds_left(source.database, standing) if ended < planned else None,
        "running": progress.running(source.database, standing.name),
        "studies": progress.studies_of(source.database, standing.name),
        "sizing": sizing_arms(source.spec(standing.name)),
        "best": best,
        "task": source.data(standing.name)["task"],
    }


def sizing_arms(spec: Mapping[str, Any]) -> list[str]:
    """The arms whose networks find their size, of a plan as `studies.plan.Plan.spec` gives it."""
    return [name for name, arm in spec["arms"].items() if "stage" not in arm and method_class(arm["method"]).sizes]
