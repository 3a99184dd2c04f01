"""Many networks, one knob: plans, sweeps with Ray, one database, comparisons. Uses sizer; only dashboards use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.database import open_study as open
    from studies.sizing import size

__all__ = ["open", "size"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is: Optuna takes a while."""
    if name == "size":
        from studies.sizing import size

        return size
    if name == "open":
        from studies.database import open_study

        return open_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
