"""What the commands do, once their arguments are read."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from dashboards import numbers, progress, terminal
from dashboards.facts import facts
from dashboards.report import render
from sizer import architecture
from sizer.checkpoint import load_tensors
from sizer.errors import InputError, unknown
from studies import query
from studies.compare import compare
from studies.database import Database, open_database, plain_errors
from studies.plan import Plan
from studies.sweep import run


def matching(database: Database, given: str) -> list[str]:
    """The evaluations that a name means: the one of that name, or all the cells under it.

    Raises:
        UnknownNameError: there is none; the line lists those there are.
    """
    names = query.plan_names(database)
    found = [name for name in names if name == given] or [name for name in names if name.startswith(f"{given}/")]
    if not found:
        raise unknown("plan", given, names)
    return found


def chosen(database: Database, given: str | None) -> str:
    """The one evaluation that is meant; where none is named, the only one there is.

    Raises:
        InputError: there is none, or several; the line lists them.
    """
    names = matching(database, given) if given is not None else query.plan_names(database)
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError("no sweep in the database yet: `sizer sweep PLAN` makes one, `sizer presets` lists plans")
    raise InputError(f"which plan? name one of: {', '.join(names)}")
