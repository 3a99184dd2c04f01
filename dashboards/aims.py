"""What came of a plan's target, as a table and sentences: the terminal and the report show the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards import numbers
from dashboards.tables import Table
from studies.target import Aim, Target


def table(found: Mapping[str, Sequence[Aim]], spec: Mapping[str, Any]) -> Table:
    """How far each budget of a plan's target is, a row each: its network, and the trial that gave it."""
    target = Target(**spec["target"])
    what = {"params": "parameters", "flops": "FLOPs", "latency": "latency"}[target.kind]
    rows = []
    for arm, each in found.items():
        for aim in each:
            got = aim.trial
            words = ("-", "-", "-", "-")
            if got is not None:
                under = f"{100 * (1 - got.size / aim.budget):.1f} %"
                words = (target.told(got.size), under, numbers.knob(got.knob), str(got.number))
            rows.append((f"{arm}, {target.told(aim.budget)}", *words))
    return Table(
        title=f"Networks for the target, at most {100 * target.within:g} % under each budget",
        columns=(f"{what} at most", "network", "under", "knob", "trial"),
        rows=tuple(rows),
    )


def not_met(found: Mapping[str, Sequence[Aim]], spec: Mapping[str, Any]) -> list[str]:
    """Why budgets have no network, each with the nearest there is."""
    told = Target(**spec["target"]).told
    return [
        f"{arm}, {told(aim.budget)}: {aim.why}"
        + (f"; the nearest is trial {aim.nearest.number} with {told(aim.nearest.size)}" if aim.nearest else "")
        for arm, each in found.items()
        for aim in each
        if aim.trial is None
    ]
